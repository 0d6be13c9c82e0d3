"""Processes of a node: forked helpers that answer on a socket, and programs that run without the node's powers."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import termios
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netsim.emulated.node.realtime import die_with_parent, set_process_name
from netsim.errors import HostError

_libc = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 41
_NET_RAW = 13
_KEPT = {1, 2}  # reading files of others: a checkout in somebody's home directory


def fork(
    name: str, work: Callable[[socket.socket], None], *, close: Sequence[socket.socket] = ()
) -> tuple[int, socket.socket]:
    """Runs `work` in a child with one end of a socket; returns its process number and the other end."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    child = os.fork()
    if child:
        theirs.close()
        return child, ours
    code = 1
    try:
        die_with_parent(parent)
        set_process_name(name)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ours.close()
        for one in close:
            one.close()
        work(theirs)
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            theirs.sendall(_complaint(error))
        traceback.print_exc()
    finally:
        os._exit(code)


def _complaint(error: BaseException) -> bytes:
    import json

    return json.dumps({"error": str(error) or type(error).__name__}).encode() + b"\n"


def launch(
    argv: Sequence[str],
    env: Mapping[str, str],
    descriptors: tuple[int, int, int],
    user: int | None,
    directory: Path,
    *,
    terminal: bool = False,
    raw_sockets: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own; it ends with this process and cannot change the network.

    descriptors: its standard input, output and error. user: the user and group number to become; None keeps the user
    and only gives up capabilities. terminal: the standard input is a terminal, which the session is to control.
    raw_sockets: CAP_NET_RAW may be had, for ping and tcpdump: by root, or by programs whose files have it.
    Raises HostError if it cannot be started, with the reason.
    """
    parent = os.getpid()
    kept = {*(_KEPT if user is None else ()), *([_NET_RAW] if raw_sockets else [])}
    reason, complaint = os.pipe()  # what goes wrong between fork and exec: subprocess itself does not say

    def give_up() -> None:
        try:
            become()
        except OSError as error:
            os.write(complaint, str(error).encode())
            raise

    def become() -> None:
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        with contextlib.suppress(PermissionError):  # under `nice`, which an ordinary user cannot take back
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        for capability in range(_CAPABILITIES):
            if capability not in kept:
                _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        die_with_parent(parent)  # last: a change of user forgets it

    try:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=directory,
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            start_new_session=True,
            preexec_fn=give_up,
        )
    except (subprocess.SubprocessError, OSError) as error:
        os.set_blocking(reason, False)
        with contextlib.suppress(BlockingIOError):
            why = os.read(reason, 4096).decode(errors="replace")
            raise HostError(f"{argv[0]} cannot be started in this node: {why}") from None
        raise HostError(f"{argv[0]} cannot be started in this node: {getattr(error, 'strerror', error)}") from None
    finally:
        os.close(reason)
        os.close(complaint)


def start_privileged(
    argv: Sequence[str], env: Mapping[str, str], descriptors: tuple[int, int, int]
) -> subprocess.Popen[bytes]:
    """Starts a helper of our own that needs this process's powers, as `launch` does; it ends with this process."""
    parent = os.getpid()
    return subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=descriptors[0],
        stdout=descriptors[1],
        stderr=descriptors[2],
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),
    )


def is_stopped(process: int) -> bool:
    """Whether a process is stopped (SIGSTOP, a debugger) without being dead."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def end_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a program and everything it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
