"""Where a run's files are: the one place that knows the names of the files and folders of runs/<suite>/<run-id>/.

spec.json         the frozen cell (harness.spec.run_spec.RunSpec)
environment.json  versions, kernel, engine, congestion control, buffers, CPU, git state
links.json        {"before": LinkReport, "after": LinkReport} as `longhaul wan check --json` prints them, and
                  "overloads": where a delay daemon did not keep up during the run, in words
events.jsonl      what happened when       memory.json    counted bytes by component and rank
membership.*      the coordinator's job and log, in runs with declared faults
log.txt           of all processes         failure.json   why the run failed
go                the runner's sign to begin training, while the run lasts
result.json       harness.records.run_record.Result, written last and atomically
rank-N/           a worker's own files, see WorkerDirectory
rank-N.K/         those of worker K of a site with several, from 1; rank-N/ are its leader's
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_RANK = re.compile(r"rank-(0|[1-9]\d{0,5})(?:\.([1-9]\d{0,2}))?")


class WorkerId(NamedTuple):
    """Which worker of a run: the rank of its site, and which of the site's workers; 0 leads."""

    rank: int
    member: int = 0

    def __str__(self) -> str:
        return f"rank {self.rank}, worker {self.member}" if self.member else f"rank {self.rank}"


def worker_ids(members: Sequence[int]) -> list[WorkerId]:
    """All workers of a run whose sites have so `members` many."""
    return [WorkerId(rank, member) for rank, count in enumerate(members) for member in range(count)]


@dataclass(frozen=True)
class WorkerDirectory:
    """rank-N/: the files of one worker."""

    path: Path

    @property
    def job(self) -> Path:
        """harness.worker.job.Job: written by the runner, read by the trainer."""
        return self.path / "job.json"

    @property
    def ready(self) -> Path:
        """Made by the trainer when it has been built and waits for the runner."""
        return self.path / "ready"

    @property
    def steps(self) -> Path:
        """One harness.records.run_record.Step per line."""
        return self.path / "steps.jsonl"

    @property
    def ledger(self) -> Path:
        """Payload bytes per step and transfer."""
        return self.path / "ledger.jsonl"

    @property
    def worker_log(self) -> Path:
        """harness.records.logs.WorkerLog: faults of this worker, and how it recovered."""
        return self.path / "happened.jsonl"

    @property
    def lost_steps(self) -> Path:
        """Steps that were computed and had to be discarded."""
        return self.path / "lost.jsonl"

    @property
    def summary(self) -> Path:
        """harness.worker.job.Summary: the trainer's last word."""
        return self.path / "summary.json"

    @property
    def ended(self) -> Path:
        """How many trainers of this worker have ended, by the runner; beside the folder, which only they can enter."""
        return self.path.with_name(f"{self.path.name}.ended")

    @property
    def heartbeat(self) -> Path:
        """Touched by the trainer every second: a process that is stopped does not."""
        return self.path / "heartbeat"

    @property
    def log(self) -> Path:
        """What the trainer printed."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """harness.worker.checkpoint: a folder per step."""
        return self.path / "checkpoints"


@dataclass(frozen=True)
class RecordDirectory:
    """The files that every record has, a run's and a program's: what ran where, on which links, and what happened."""

    path: Path

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def links(self) -> Path:
        return self.path / "links.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"


@dataclass(frozen=True)
class RunDirectory(RecordDirectory):
    """The files of one run."""

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def memory(self) -> Path:
        return self.path / "memory.json"

    @property
    def membership(self) -> Path:
        return self.path / "membership.json"

    @property
    def membership_log(self) -> Path:
        return self.path / "membership.log"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def go(self) -> Path:
        """Made by the runner when the links have been checked; the trainers wait for it."""
        return self.path / "go"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def worker(self, rank: int, member: int = 0) -> WorkerDirectory:
        return WorkerDirectory(self.path / (f"rank-{rank}.{member}" if member else f"rank-{rank}"))

    def workers(self) -> list[WorkerDirectory]:
        """Those that exist, by rank."""
        names = ((_RANK.fullmatch(path.name), path) for path in self.path.iterdir())
        found = {(int(match[1]), int(match[2] or 0)): path for match, path in names if match}
        return [WorkerDirectory(found[worker]) for worker in sorted(found)]

    @property
    def finished(self) -> bool:
        """Whether there is a result; a run without one is unfinished."""
        return self.result.exists()


def run_directories(folder: Path) -> list[RunDirectory]:
    """Every run under `folder` (or `folder` itself), finished or not, in name order."""
    return [RunDirectory(path.parent) for path in sorted(folder.rglob("spec.json"))]


def suite_description(suite_folder: Path) -> Path:
    """suite.json beside a suite's runs: its name, description and baseline."""
    return suite_folder / "suite.json"
