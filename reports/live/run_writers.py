"""What every kind of tracker shares: each step of each run is written once, in order, while the suite runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from reports.live.cell_follower import CellFollower
from reports.live.status import Point

WRITING_SECONDS = 5.0  # between two readings of the records: the host belongs to the trainers


class RunWriter(Protocol):
    """Takes the steps of one run."""

    def add(self, point: Point) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class RunWriters:
    """One writer per run. `open_run` makes it from the run's id and record, and removes what an earlier start wrote."""

    def __init__(self, open_run: Callable[[str, CellFollower], RunWriter]) -> None:
        self._open_run = open_run
        self._writers: dict[str, RunWriter] = {}
        self._written: dict[str, int] = {}  # steps, by run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self._writers.values():
            writer.close()

    def write(self, runs: Mapping[str, CellFollower]) -> None:
        """What was logged since the last call. A run that was begun anew is opened again."""
        for name, run in runs.items():
            points = list(run.points)
            done = self._written.get(name, 0)
            if len(points) < done:
                self._writers.pop(name).close()
                done = 0
            if len(points) == done:
                continue
            writer = self._writers.get(name) or self._writers.setdefault(name, self._open_run(name, run))
            for point in points[done:]:
                writer.add(point)
            writer.flush()
            self._written[name] = len(points)


def scalars(point: Point) -> dict[str, float]:
    """The values of a step that are known, by the name that they have in every tracker."""
    values = {"loss": point.loss, "evaluation_loss": point.evaluation_loss, "payload_bytes": point.bytes}
    return {name: value for name, value in values.items() if value is not None}


def safe_name(run_id: str) -> str:
    """A run's id as the name of a file, whatever a record's folder is called; at most 100 characters."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id).strip(".")[:100] or "run"
