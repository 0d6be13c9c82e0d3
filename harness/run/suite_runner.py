"""Runs a suite: cell after cell, reusing what is complete, going on after a cell that failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import psutil
from filelock import FileLock, Timeout

from harness.records.layout import suite_description
from harness.records.run_record import Result, write_json
from harness.run.cell import Cell, CellError, run_cell
from harness.spec.run_spec import NetworkSpec, RunSpec
from harness.spec.suite import Suite
from netsim.emulated.network import resolve
from netsim.errors import LonghaulError

State = Literal["complete", "reused", "invalid", "failed"]


@dataclass(frozen=True)
class CellOutcome:
    """What became of a cell."""

    cell: Cell
    state: State
    result: Result | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("complete", "reused")


class Observer(Protocol):
    """Is told how the suite goes."""

    def stage(self, cell: Cell, stage: str, directory: Path) -> None: ...

    def done(self, outcome: CellOutcome) -> None: ...


def cells_of(suite: Suite, runs: Path, substrate: str, engine: str) -> list[Cell]:
    """The suite's cells with substrate and engine chosen for this host; the command line's choice goes first."""
    asked = [_with_network(spec, substrate, engine) for spec in suite.cells]
    return [Cell.of(_chosen(spec), runs, asked=spec) for spec in asked]


def describe(suite: Suite, runs: Path) -> None:
    """Writes what the suite is beside its runs, for reports."""
    folder = runs / suite.name
    document = {"suite": suite.name, "description": suite.description, "baseline": suite.baseline}
    with alone(folder):  # a runner that is turned away must not describe the runs of another one
        try:
            write_json(suite_description(folder), document)
        except OSError as error:
            raise _unwritable(folder, error) from None


def _chosen(spec: RunSpec) -> RunSpec:
    choice = resolve(spec.network.substrate, spec.network.engine)
    return _with_network(spec, choice.substrate, choice.engine)


def _with_network(spec: RunSpec, substrate: str, engine: str) -> RunSpec:
    """The spec with another substrate and engine; auto leaves what it has."""
    named = {"substrate": substrate, "engine": engine}
    fields = spec.network.model_dump() | {name: value for name, value in named.items() if value != "auto"}
    return spec.model_copy(update={"network": NetworkSpec.model_validate(fields)})


def run_suite(cells: list[Cell], runs: Path, fresh: bool, observer: Observer) -> Iterator[CellOutcome]:
    """Every cell's outcome, as it happens."""
    cache = runs.absolute() / ".cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(cache, error) from None
    command_began: float | None = psutil.Process().create_time()
    with alone(cells[0].directory.parent):
        for cell in cells:
            outcome = _one(cell, cache, fresh, observer, command_began)
            command_began = None  # only the first cell's start-up is counted from the command
            observer.done(outcome)
            yield outcome


def reused(cell: Cell) -> CellOutcome | None:
    """What an earlier run of this very cell left, if it is valid."""
    stored = cell.finished()
    return None if stored is None else CellOutcome(cell, "reused", stored)


def _one(cell: Cell, cache: Path, fresh: bool, observer: Observer, began: float | None) -> CellOutcome:
    if not fresh and (found := reused(cell)) is not None:
        return found
    try:
        result = run_cell(
            cell, cache, lambda stage, path: observer.stage(cell, stage, path), began or time.time(), fresh
        )
    except CellError as error:
        return CellOutcome(cell, "failed", reason=str(error))
    if not result.valid:
        return CellOutcome(cell, "invalid", result, "; ".join(result.why_invalid))
    return CellOutcome(cell, "complete", result)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two runners must not write the same suite's records at once."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LonghaulError(f"another run is writing to {folder}; wait for it or choose another --runs") from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> LonghaulError:
    return LonghaulError(f"cannot write records to {folder}: {error.strerror or error}; choose another --runs")
