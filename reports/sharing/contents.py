"""What of the records goes into an archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records.files import open_to_read
from harness.records.layout import RunDirectory, WorkerDirectory, run_directories, suite_description
from netsim.errors import InputError

# Of use to this host and the run itself alone: settings with paths, signs, checkpoints, locks.
_PASSED_OVER = ("job.json", "ready", "go", "heartbeat", "checkpoints", "membership.json", ".lock", "config.json")


@dataclass(frozen=True)
class Member:
    """A file of the archive: its path there, its content, and when it was last changed (seconds since the epoch)."""

    name: str
    content: bytes
    changed: float


@dataclass(frozen=True)
class LeftOut:
    """Something in the records that the archive does not hold."""

    path: str
    why: str


@dataclass(frozen=True)
class Contents:
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...]
    finished: int  # runs with a result
    unfinished: int


def contents_of(folders: Sequence[Path]) -> Contents:
    """The records under `folders`, as runs/SUITE/RUN/... InputError for a folder that is none or holds no run."""
    members: dict[str, Member] = {}
    left_out: list[LeftOut] = []
    homes: dict[Path, str] = {}
    finished = unfinished = 0
    for folder in folders:
        if not folder.is_dir():
            raise InputError(str(folder), "", "no such directory", "a directory of runs")
        found = run_directories(folder)
        if not found:
            raise InputError(str(folder), "", "no run", "a directory of runs, like runs/quickstart")
        for files in found:
            run = files.path.absolute()
            home = homes.setdefault(run.parent, _free(run.parent.name or "suite", set(homes.values())))
            description = suite_description(run.parent)
            if description.exists():
                _take(description, f"runs/{home}/{description.name}", members, left_out)
            finished, unfinished = finished + files.finished, unfinished + (not files.finished)
            _take_run(RunDirectory(run), f"runs/{home}/{run.name}", members, left_out)
    ordered = tuple(members[name] for name in sorted(members))
    return Contents(ordered, tuple(dict.fromkeys(left_out)), finished, unfinished)


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with a number behind it where suites of two places have the same."""
    return next(one for one in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if one not in taken)


def _take_run(files: RunDirectory, place: str, members: dict[str, Member], left_out: list[LeftOut]) -> None:
    wanted = {
        files.spec,
        files.environment,
        files.links,
        files.events,
        files.memory,
        files.membership_log,
        files.log,
        files.failure,
        files.result,
    }
    workers = files.workers()
    for worker in workers:
        wanted |= _of_worker(worker)
    for path in sorted(wanted):
        if path.exists() or path.is_symlink():
            _take(path, f"{place}/{path.relative_to(files.path).as_posix()}", members, left_out)
    known = set(wanted) | {worker.path for worker in workers if not worker.path.is_symlink()}
    for folder in (files.path, *(worker.path for worker in workers if not worker.path.is_symlink())):
        for path in sorted(folder.iterdir()):
            if path not in known and not _passed_over(path.name):
                left_out.append(LeftOut(str(path), "not a file of a record"))


def _passed_over(name: str) -> bool:
    """Also what the host's agents print, and how often workers ended."""
    return name in _PASSED_OVER or name.endswith(".ended") or (name.startswith("agent-") and name.endswith(".log"))


def _of_worker(worker: WorkerDirectory) -> set[Path]:
    return {worker.steps, worker.ledger, worker.worker_log, worker.lost_steps, worker.summary, worker.log}


def _take(path: Path, name: str, members: dict[str, Member], left_out: list[LeftOut]) -> None:
    try:
        with open_to_read(path) as file:
            members[name] = Member(name, file.read(), os.fstat(file.fileno()).st_mtime)
    except InputError as error:
        left_out.append(LeftOut(str(path), str(error.found)))
    except OSError as error:
        left_out.append(LeftOut(str(path), error.strerror or str(error)))
