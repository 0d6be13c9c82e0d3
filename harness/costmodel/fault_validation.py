"""The measured cost of faults in stored runs against the predicted one. In the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from harness.costmodel.calibration import Calibration
from harness.costmodel.predict import predict
from harness.records.run_record import Run
from netsim.units import show_size

# Counts and bytes follow from plan and method; seconds also from the host.
QUANTITIES = ("generations", "tokens_lost", "bytes_repeated", "bytes_caught_up", "detection", "recovery", "wall")
TITLES = {
    "generations": "generations",
    "tokens_lost": "wasted tokens",
    "bytes_repeated": "retransmitted bytes",
    "bytes_caught_up": "resync bytes",
    "detection": "detection time",
    "recovery": "recovery time",
    "wall": "wall time",
}


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


def section(rows: Sequence[FaultRow]) -> list[str]:
    """Lines of Markdown: the cost of faults, measured / predicted."""
    lines = [
        "## The cost of faults",
        "",
        "Runs with declared faults, measured / predicted. Counts and bytes follow from the plan and from what the",
        "method does about a loss ([reliability](reliability.md)). How much of an exchange had been sent when it broke",
        "off is a race between workers: expected is what fills TCP's send buffers, a rule that was chosen with the",
        "runs below in sight. A step that a newcomer interrupts is wasted, too, for members who had begun it when",
        "others met; none is expected. Of several losses in a run the times are means. A fault is injected after the",
        "update that follows a synchronisation and before the slot that this update shortens: a method that",
        "synchronises at every step notices earlier than expected by as much.",
        "",
        "| | runs | exact | mean error | max error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, error in errors_of(rows).items():
        mean, most = (f"{value:.1f} %" if value is not None else "" for value in (error.mean, error.max))
        lines.append(f"| {TITLES[name]} | {error.runs} | {error.exact} | {mean} | {most} |")
    titles = " | ".join(TITLES[name] for name in QUANTITIES)
    lines += ["", f"| run | faults | {titles} |", f"| --- | --- |{' ---: |' * len(QUANTITIES)}"]
    for row in rows:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(row.faults.items())) or "none"
        shown = " | ".join(pair(name, row.quantities[name]) for name in QUANTITIES)
        lines.append(f"| `{row.id}` | {faults} | {shown} |")
    return [*lines, ""]


def pair(name: str, one: Compared) -> str:
    """Measured / predicted, with units."""
    return f"{_shown(name, one.measured)} / {_shown(name, one.predicted)}"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith("bytes"):
        return show_size(value)
    return f"{value:.2f} s" if name in ("detection", "recovery", "wall") else f"{value:.0f}"


def _mean(seconds: Sequence[float] | None) -> float | None:
    return fmean(seconds) if seconds else None
