"""Runs a suite: cell after cell, reusing what is complete, going on after a cell that failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import psutil
from filelock import FileLock, Timeout

from harness.records.layout import suite_description
from harness.records.run_record import Result, write_json
from harness.run.cell import Cell
from harness.run.execution import CellError, run_cell
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
    """The suite's cells with substrate and engine chosen for this host; the command line's choice goes first.

    What has been finished on that substrate and engine stays finished, whether or not they were named then.
    """
    return [_cell(spec, runs, substrate, engine) for spec in suite.cells]


def _cell(spec: RunSpec, runs: Path, substrate: str, engine: str) -> Cell:
    asked = _with_network(spec, substrate, engine)
    chosen = _chosen(asked)
    cell, place = Cell.of(chosen, runs, asked=asked), chosen.network
    if cell.finished() is None:
        for other in (spec, _with_network(spec, place.substrate, "auto"), chosen):
            result = (found := cell.asked_as(other)).finished()
            if result is not None and (result.substrate, result.engine) == (place.substrate, place.engine):
                return found
    return cell


def describe(suite: Suite, runs: Path, cells: Sequence[Cell] = ()) -> None:
    """Writes what the suite is beside its runs, for reports; with its cells, for those who watch it run."""
    folder = runs / suite.name
    document = {
        "suite": suite.name,
        "description": suite.description,
        "baseline": suite.baseline,
        "cells": [_described(cell) for cell in cells],
    }
    with alone(folder):  # a runner that is turned away must not describe the runs of another one
        try:
            write_json(suite_description(folder), document)
        except OSError as error:
            raise _unwritable(folder, error) from None


def _described(cell: Cell) -> dict[str, object]:
    spec = cell.spec
    where = {
        "label": spec.label,
        "method": spec.method_name,
        "topology": spec.topology["name"],
        "seed": spec.seed,
        "steps": spec.train.steps,
    }
    return {"id": cell.run_id, **where}


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
