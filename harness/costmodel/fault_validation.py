"""The measured cost of faults in stored runs against the predicted one. In the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from harness.costmodel.calibration import Calibration
from harness.costmodel.predict import predict
from harness.records.run_record import Run

# Counts and bytes follow from plan and method; seconds also from the host.
QUANTITIES = ("generations", "tokens_lost", "bytes_repeated", "bytes_caught_up", "detection", "recovery", "wall")


@dataclass(frozen=True)
class Compared:
    """One quantity of one run: a count, tokens, bytes or seconds; None where there is none."""

    measured: float | None
    predicted: float | None

    @property
    def error(self) -> float | None:
        """Predicted over measured, minus one; None where nothing was measured, unless nothing was expected."""
        if self.measured is None or self.predicted is None:
            return None
        if not self.measured:
            return None if self.predicted else 0.0
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class FaultRow:
    """A run with declared faults. detection and recovery: means over its losses, seconds."""

    id: str
    label: str
    algorithm: str
    topology: str
    substrate: str
    faults: dict[str, int]
    quantities: dict[str, Compared]
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        pairs = {name: {**asdict(one), "error": one.error} for name, one in self.quantities.items()}
        return {**asdict(self), "quantities": pairs}


@dataclass(frozen=True)
class QuantityError:
    """Over some runs: how many have a prediction, how many equal it, mean and maximum absolute percentage error.

    undefined: runs that measured nothing where something was expected.
    """

    runs: int
    exact: int
    undefined: int
    mean: float | None
    max: float | None


def compare_faults(run: Run, calibration: Calibration | None) -> FaultRow:
    """A run with declared faults and its prediction."""
    result, found = run.result, predict(run.spec, calibration, run.result.steps)
    cost = found.fault_cost if found.fault_cost is not None and not found.fault_cost.abandoned else None
    measured: dict[str, float | None] = {
        "generations": result.generations,
        "tokens_lost": result.tokens_lost,
        "bytes_repeated": result.bytes_repeated,
        "bytes_caught_up": result.bytes_caught_up,
        "detection": _mean(result.detection_seconds),
        "recovery": _mean(result.recovery_seconds),
        "wall": result.wall_seconds,
    }
    predicted: dict[str, float | None] = dict.fromkeys(QUANTITIES)
    if cost is not None:
        predicted = {
            "generations": cost.generations,
            "tokens_lost": cost.tokens_lost,
            "bytes_repeated": cost.bytes_repeated,
            "bytes_caught_up": cost.bytes_caught_up,
            "detection": _mean(cost.detection_seconds),
            "recovery": _mean(cost.recovery_seconds),
            "wall": cost.wall_seconds,
        }
    return FaultRow(
        id=result.id,
        label=result.label,
        algorithm=result.algorithm,
        topology=result.topology,
        substrate=f"{result.substrate}/{result.engine}",
        faults=result.faults or {},
        quantities={name: Compared(measured[name], predicted[name]) for name in QUANTITIES},
        why_not=found.why_not,
    )


def errors_of(rows: Sequence[FaultRow]) -> dict[str, QuantityError]:
    """By quantity; those that no run has a prediction of are left out."""
    found = {}
    for name in QUANTITIES:
        pairs = [row.quantities[name] for row in rows]
        pairs = [one for one in pairs if one.measured is not None and one.predicted is not None]
        errors = [100 * abs(one.error) for one in pairs if one.error is not None]
        if pairs:
            found[name] = QuantityError(
                runs=len(pairs),
                exact=sum(one.measured == one.predicted for one in pairs),
                undefined=len(pairs) - len(errors),
                mean=fmean(errors) if errors else None,
                max=max(errors, default=None),
            )
    return found


def _mean(seconds: Sequence[float] | None) -> float | None:
    return fmean(seconds) if seconds else None
