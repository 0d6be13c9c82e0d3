"""Projections from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.cluster.sweep import sweep
from harness.costmodel.calibration import Calibration, load_calibration
from harness.costmodel.planning.answer_tables import Answers, answers
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.costmodel.projection import variants
from harness.costmodel.projection_rows import rows_of
from harness.spec.scenario import Scenario, find_scenario, load_scenario

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Projection:
    """A projected scenario: rows for every method and point of the sweep, and answers for planning."""

    scenario: Scenario
    rows: list[ProjectedRow]
    answers: Answers

    @property
    def base(self) -> list[ProjectedRow]:
        """The rows at the scenario's own rate, RTT, sites and options: one per method."""
        return base_rows(self.rows, self.scenario)

    def to_json(self) -> dict[str, Any]:
        """The document that `longhaul project --json` prints."""
        return {
            "scenario": self.scenario.name,
            "rows": [row.to_json() for row in self.rows],
            "answers": self.answers.to_json(),
        }


def project(
    scenario: Scenario | Source,
    calibration: Calibration | Source | None = None,
    *,
    simulate: bool = False,
    jobs: int = 1,
    backend: str = "local",
    scheduler: str | None = None,
    advance: Callable[[int], None] | None = None,
) -> Projection:
    """Time, bytes and memory of every method of a scenario over its sweep, by the cost model.

    Args:
        scenario: a loaded scenario, a path to a YAML file (docs/projection.md), or a name that `longhaul list
            scenarios` shows.
        calibration: constants fitted by `longhaul calibrate`, or their file; by default first principles.
        simulate: only each method's base, transfer by transfer in the discrete-event simulation.
        jobs: local processes.
        backend: `local`, `dask` or `ray`: where the points of the sweep are evaluated.
        scheduler: the address of the cluster.
        advance: is called after each point with how many there are.

    Returns:
        The rows (seconds, bytes, shares; `base` has one per method) and the answers for planning.

    Raises:
        InputError: the scenario or the calibration does not exist or is wrong; the message names the line.

    Example:
        >>> projection = longhaul.project("photon-7b", simulate=True)
        >>> [(row.label, row.syncs) for row in projection.base][:2]
        [('ddp', 21900), ('photon', 22)]
    """
    loaded = scenario if isinstance(scenario, Scenario) else load_scenario(find_scenario(os.fspath(scenario)))
    fitted = calibration if isinstance(calibration, Calibration | None) else load_calibration(Path(calibration))
    tasks = [variant for variant in variants(loaded) if not simulate or variant.axis == "base"]
    evaluate = partial(rows_of, loaded, calibration=fitted, exact=simulate)
    after_each = (lambda: advance(len(tasks))) if advance is not None else (lambda: None)
    parts = sweep(evaluate, tasks, backend, scheduler, jobs, after_each)
    rows = [row for part in parts for row in part]
    return Projection(loaded, rows, answers(loaded, rows, fitted))
