"""Cleaning up after dead runs: sockets, processes, containers, networks. Live runs are never touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from netsim.emulated.owner import VARIABLE, Owner, owner_of, runtime_root
from netsim.emulated.substrates.resource_limits import groups_of_dead, remove_groups


@dataclass(frozen=True)
class Removed:
    """What was removed, by name."""

    processes: tuple[int, ...] = ()
    directories: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not (self.processes or self.directories or self.containers or self.networks)


def sweep(containers: bool = False) -> Removed:
    """Removes what belongs to owners that are dead. containers: ask the container engine too."""
    processes = _end_processes()
    removed_containers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    if containers:
        from netsim.emulated.substrates.docker_engine import sweep_containers

        removed_containers, networks = sweep_containers()
    return Removed(processes, _remove_directories(), removed_containers, networks)


def _end_processes() -> tuple[int, ...]:
    """Namespaces, links and queues end with the processes in them."""
    ended = []
    marker = f"{VARIABLE}=".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if marker not in environment:
            continue
        value = environment.split(marker, 1)[1].split(b"\0", 1)[0].decode(errors="replace")
        owner = Owner.parse(value)
        if owner is None or owner.alive:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(entry.name), signal.SIGKILL)
            ended.append(int(entry.name))
    return tuple(ended)


def _remove_directories() -> tuple[str, ...]:
    removed = []
    remove_groups(list(groups_of_dead()))
    root = runtime_root()
    if not root.is_dir():
        return ()
    for entry in root.iterdir():
        if entry.is_dir() and (owner := owner_of(entry)) is not None and not owner.alive:
            shutil.rmtree(entry, ignore_errors=True)
            removed.append(entry.name)
    return tuple(removed)
