"""Real-time priority for a container's delay daemon, given from outside.

Where control groups divide real-time among themselves (version 1 with CONFIG_RT_GROUP_SCHED), a container's group has
none, and its processes may not be real-time whatever their capabilities. Root on the same host can move the one process
to the root group of the processor controller. That also keeps a limit on the trainer's processor time from delaying
packets.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_GROUPS = (Path("/sys/fs/cgroup/cpu/cgroup.procs"), Path("/sys/fs/cgroup/cpu,cpuacct/cgroup.procs"))


def hasten(container: int, process: int, priority: int) -> None:
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
    """This host's number of a process of the container; None where its engine runs elsewhere."""
    try:
        space = Path(f"/proc/{container}/ns/pid").readlink()
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
