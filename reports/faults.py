"""The table of what declared faults cost each method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.costmodel.fault_model import PredictedFaultCost
from harness.records.run_record import Result
from reports.statistics import summarise
from reports.study import Study
from reports.style.quantities import scale_for
from reports.style.tables import EMPTY, Column, Raw, Table, Value

# key, heading, quantity, and what of it a run has: None where there was nothing to measure
_COSTS: tuple[tuple[str, str, str, Callable[[Result], float | None]], ...] = (
    ("faults", "faults", "", lambda result: sum((result.faults or {}).values())),
    ("generations", "generations", "", lambda result: result.generations),
    ("tokens_lost", "wasted tokens", "", lambda result: result.tokens_lost),
    ("lost_share", "of all", "%", lambda result: _share(result)),
    ("detection", "detection time", "s", lambda result: _worst(result.detection_seconds)),
    ("recovery", "recovery time", "s", lambda result: _worst(result.recovery_seconds)),
    ("repeated", "retransmitted bytes", "B", lambda result: result.bytes_repeated),
    ("caught_up", "resync bytes", "B", lambda result: result.bytes_caught_up),
)

# The same of what the cost model expected, where it expects it.
_EXPECTED: dict[str, Callable[[PredictedFaultCost], float | None]] = {
    "generations": lambda cost: cost.generations,
    "tokens_lost": lambda cost: cost.tokens_lost,
    "detection": lambda cost: _worst(cost.detection_seconds),
    "recovery": lambda cost: _worst(cost.recovery_seconds),
    "repeated": lambda cost: cost.bytes_repeated,
    "caught_up": lambda cost: cost.bytes_caught_up,
}


def _share(result: Result) -> float | None:
    """Of the tokens that were trained on, the wasted ones."""
    if result.tokens_lost is None or not result.tokens_committed:
        return None
    return result.tokens_lost / (result.tokens_lost + result.tokens_committed)


def _worst(seconds: Sequence[float] | None) -> float | None:
    return max(seconds, default=None) if seconds is not None else None


def faults_table(study: Study) -> Table:
    """One row for each network and method whose suite declares faults: medians over valid runs, and beside them, in
    brackets, over the same runs what the cost model expected, where it was asked.
    """
    fault_costs = study.predictions.fault_costs if study.predictions is not None else {}
    faulty = {int(run): study.stored[int(run)].result for run in study.runs["run"]}
    faulty = {run: result for run, result in faulty.items() if result.faults is not None}
    everything = {key: [value for r in faulty.values() if (value := cost(r)) is not None] for key, _, _, cost in _COSTS}
    scales = {key: scale_for(quantity, everything[key]) for key, _, quantity, _ in _COSTS}
    columns = [Column("topology", "network", numeric=False), Column("label", "method", numeric=False)]
    columns += [Column(key, heading, scales[key].unit) for key, heading, _, _ in _COSTS]
    columns.append(Column("n", "n"))
    rows, extra = [], []
    for group, topology in study.places:
        for label in study.labels:
            runs = [int(run) for run in study.at(group, topology, label)["run"] if int(run) in faulty]
            if not runs:
                continue
            more: dict[str, Raw] = {}
            row = {"topology": Value(topology, study.place_name(group, topology)), "label": Value(label, label)}
            for key, _, _, cost in _COSTS:
                found = summarise([cost(faulty[run]) for run in runs])
                if found is None:
                    row[key] = EMPTY
                    continue
                expected = summarise(
                    [_EXPECTED[key](fault_costs[run]) for run in runs if run in fault_costs and key in _EXPECTED]
                )
                spread = f"[{scales[key].of(expected.median)}]" if expected else ""
                row[key] = Value(found.median, scales[key].of(found.median), spread, tuple(runs))
                if expected:
                    more |= _beside(key, found.median, expected.median)
            row["n"] = Value(len(runs), str(len(runs)), runs=tuple(runs))
            rows.append(row)
            extra.append(more)
    caption = "What the suite's faults cost: medians over valid runs, of each run the longest detection and recovery. "
    caption += "Tokens are lost with a worker, or trained again. The same seed means the same faults for every method."
    if any(extra) and study.predictions is not None:
        caption += f" In brackets: what the cost model expected, from {study.predictions.basis}."
    return Table("faults", "The cost of faults", caption, tuple(columns), tuple(rows), tuple(extra))


def _beside(key: str, measured: float, expected: float) -> dict[str, Raw]:
    """For programs: what was expected, and its relative error where something was measured."""
    error = expected / measured - 1 if measured else None
    return {f"predicted_{key}": expected, f"error_of_{key}": error}
