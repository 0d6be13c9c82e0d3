"""Bounds on memory and processes of a node that is made of namespaces: a control group of its own, where there are any.

Groups are made at the top of the hierarchies (version 1 or 2), named for their owner, and removed when they are empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from netsim.emulated.owner import Owner

HIERARCHIES = Path("/sys/fs/cgroup")
PREFIX = "longhaul-"
REMOVAL_SECONDS = 2.0  # for the kernel to let go of processes that were killed


def make_groups(name: str, memory: int | None, processes: int) -> list[Path]:
    """The groups of one node, one per hierarchy; none where this host lets us make none.

    memory: bytes. A process enters by writing its number to `cgroup.procs` in each.
    """
    if (HIERARCHIES / "cgroup.controllers").exists():
        with suppress(OSError):
            (HIERARCHIES / "cgroup.subtree_control").write_text("+memory +pids")
        wanted = {HIERARCHIES: {"memory.max": memory, "pids.max": processes}}
    else:
        wanted = {
            HIERARCHIES / "memory": {"memory.limit_in_bytes": memory},
            HIERARCHIES / "pids": {"pids.max": processes},
        }
    made: list[Path] = []
    for hierarchy, limits in wanted.items():
        group = hierarchy / f"{PREFIX}{name}"
        try:
            group.mkdir()
            for file, value in limits.items():
                if value is not None:
                    (group / file).write_text(str(value))
        except OSError:
            remove_groups([group])
        else:
            made.append(group)
    return made


def remove_groups(groups: list[Path]) -> None:
    """Those that exist, once their processes have ended."""
    end = time.monotonic() + REMOVAL_SECONDS
    left = [group for group in groups if group.is_dir()]
    while left:
        for group in left:
            with suppress(OSError):
                group.rmdir()
        left = [group for group in left if group.is_dir()]
        if time.monotonic() > end:
            return
        time.sleep(0.02 if left else 0)


def groups_of_dead() -> Iterator[Path]:
    """Groups whose owner is no more."""
    for hierarchy in (HIERARCHIES, HIERARCHIES / "memory", HIERARCHIES / "pids"):
        if hierarchy.is_dir():
            for group in hierarchy.glob(f"{PREFIX}*"):
                owner = Owner.parse(group.name.removeprefix(PREFIX).rpartition("-")[0].rpartition("-")[0])
                if owner is not None and not owner.alive:
                    yield group
