"""Process priority and name: SCHED_FIFO where the host allows it, else the most urgent ordinary priority."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK, _PR_SET_NAME = 1, 29, 15
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}

DELAY, PROBE = 20, 10  # SCHED_FIFO
AGENT = -15  # nice


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_realtime(priority: int) -> str:
    """Asks for SCHED_FIFO at `priority`, then for nice -20 and short slices; returns what was granted."""
    _libc.mlockall(_MCL_CURRENT)
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        return f"fifo {priority}"
    nice = 0
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        nice = -20
    # Since Linux 6.12 a process may ask for short slices, and is then served sooner.
    number = _SYS_SCHED_SETATTR.get(os.uname().machine)
    if number is not None:
        attributes = _Attributes(size=ctypes.sizeof(_Attributes), policy=0, nice=nice, runtime=100_000)
        _libc.syscall(number, 0, ctypes.byref(attributes), 0)
    return f"nice {nice}"


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when its parent ends, however it ends. `parent`: its process number."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def set_process_name(name: str) -> None:
    """The name of this process in `ps`; at most 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


_GROUPS = (Path("/sys/fs/cgroup/cpu/cgroup.procs"), Path("/sys/fs/cgroup/cpu,cpuacct/cgroup.procs"))


def set_realtime_in_container(container: int, process: int, priority: int) -> None:
    """Tries for SCHED_FIFO. container: its first process as this host numbers it; process: as the container does."""
    if os.geteuid() != 0:
        return
    outside = _outside(container, process)
    if outside is None:
        return
    for group in _GROUPS:
        if group.exists():
            with contextlib.suppress(OSError):
                group.write_text(str(outside))
    with contextlib.suppress(OSError):
        os.sched_setscheduler(outside, os.SCHED_FIFO, os.sched_param(priority))


def _outside(container: int, process: int) -> int | None:
    """This host's number of a process of the container; None where its engine numbers processes differently."""
    try:
        space = Path(f"/proc/{container}/ns/pid").readlink()
        if space == Path("/proc/self/ns/pid").readlink():
            return None  # a process of ours that happens to have the number
    except OSError:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns" / "pid").readlink() == space and _inside(entry) == process:
                return int(entry.name)
        except OSError:
            continue
    return None


def _inside(entry: Path) -> int | None:
    for line in (entry / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None
