"""What the cost model expected of the runs; resolving their methods brings in torch, on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.costmodel.calibration import FIRST_PRINCIPLES, load_calibration
from harness.costmodel.fault_model import PredictedFaultCost
from harness.costmodel.predict import predict
from netsim.errors import InputError
from reports.records import Stored

COLUMNS = ("run", "predicted_wall_seconds", "predicted_communication_seconds", "predicted_utilisation")


@dataclass(frozen=True)
class Predictions:
    """`basis`: the calibration by name, or first principles. `frame`: one row for each run with a prediction.
    `fault_costs`: of runs with declared faults, by run, what it was expected to cost.
    """

    basis: str
    frame: pd.DataFrame
    fault_costs: Mapping[int, PredictedFaultCost] = field(default_factory=dict)


def predict_runs(runs: Sequence[Stored], calibration: Path | None) -> Predictions:
    """Predict each cell once (seeds share it); runs that the calibration was fitted to are left out.

    A record of a method or with options that this version does not know has no prediction.
    """
    constants = load_calibration(calibration) if calibration is not None else None
    seen = constants.seen if constants else frozenset()
    known: dict[Any, tuple[dict[str, float] | None, PredictedFaultCost | None]] = {}
    fault_costs: dict[int, PredictedFaultCost] = {}
    rows: list[dict[str, float]] = []
    for index, run in enumerate(runs):
        if not run.result.valid or run.result.id in seen:
            continue
        seed = run.result.seed if run.result.faults is not None else None  # faults are drawn
        cell = (run.group, run.spec.label, run.topology.name, run.result.steps, seed)
        if cell not in known:
            try:
                found = predict(run.spec, constants, run.result.steps)
            except InputError:
                known[cell] = None, None
                continue
            times = _row(found.wall_seconds, found.communication_seconds, found.evaluation_seconds)
            known[cell] = times, found.fault_cost if found.fault_cost and not found.fault_cost.abandoned else None
        row, cost = known[cell]
        if row is not None:
            rows.append({"run": index, **row})
        if cost is not None:
            fault_costs[index] = cost
    basis = f"calibration {constants.name}" if constants else FIRST_PRINCIPLES
    return Predictions(basis, pd.DataFrame(rows, columns=list(COLUMNS)), fault_costs)


def _row(wall: float | None, communication: float | None, evaluation: float | None) -> dict[str, float] | None:
    if not wall or communication is None:
        return None
    share = 1 - (communication + (evaluation or 0.0)) / wall
    return dict(zip(COLUMNS[1:], (wall, communication, share), strict=True))
