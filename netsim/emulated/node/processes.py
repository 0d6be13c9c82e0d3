"""Processes of a node: forked helpers that answer on a socket, and programs that run without the node's powers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netsim.emulated.node.realtime import die_with_parent, set_process_name
from netsim.errors import HostError

_libc = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 41
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
    argv: Sequence[str], env: Mapping[str, str], log: Path, user: int | None, directory: Path
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own; it ends with this process and cannot change the network.

    user: the user and group number to become; None keeps the user and only gives up capabilities.
    """
    parent = os.getpid()

    def give_up() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        for capability in range(_CAPABILITIES):
            if capability not in _KEPT or user is not None:
                _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # With the program's own rights: the log is in a directory that other programs of its user write to.
        _log_to(log)
        die_with_parent(parent)  # last: a change of user forgets it

    try:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=give_up,
        )
    except subprocess.SubprocessError as error:
        raise HostError(f"a program cannot be started with its output in {log}, a file of its own: {error}") from None


def _log_to(path: Path) -> None:
    """Standard output and error are appended to `path`, which must be a regular file or none: no link, no pipe."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(f"{path} is not a file")
    for number in (1, 2):
        os.dup2(descriptor, number)


def end_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a program and everything it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
