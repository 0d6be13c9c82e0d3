"""The table of what declared misfortune cost each method."""

from __future__ import annotations

from collections.abc import Callable

from harness.records import Result
from reports.quantities import scale_for
from reports.statistics import summarise
from reports.study import Study
from reports.tables import EMPTY, Column, Table, Value

# key, heading, quantity, and what of it a run has: None where there was nothing to measure
_COSTS: tuple[tuple[str, str, str, Callable[[Result], float | None]], ...] = (
    ("faults", "faults", "", lambda result: sum((result.faults or {}).values())),
    ("generations", "groups formed", "", lambda result: result.generations),
    ("tokens_lost", "tokens lost", "", lambda result: result.tokens_lost),
    ("lost_share", "of all", "%", lambda result: _share(result)),
    ("detection", "noticed after", "s", lambda result: _worst(result.detection_seconds)),
    ("recovery", "recovered after", "s", lambda result: _worst(result.recovery_seconds)),
    ("repeated", "bytes repeated", "B", lambda result: result.bytes_repeated),
    ("caught_up", "bytes of catching up", "B", lambda result: result.bytes_caught_up),
)


def _share(result: Result) -> float | None:
    """Of the tokens that were trained on, those in vain."""
    if result.tokens_lost is None or not result.tokens_committed:
        return None
    return result.tokens_lost / (result.tokens_lost + result.tokens_committed)


def _worst(seconds: list[float] | None) -> float | None:
    return max(seconds, default=None) if seconds is not None else None


def faults_table(study: Study) -> Table:
    """One row for each network and method whose suite declares faults: medians over valid runs."""
    struck = {int(run): study.stored[int(run)].result for run in study.runs["run"]}
    struck = {run: result for run, result in struck.items() if result.faults is not None}
    everything = {key: [value for r in struck.values() if (value := cost(r)) is not None] for key, _, _, cost in _COSTS}
    scales = {key: scale_for(quantity, everything[key]) for key, _, quantity, _ in _COSTS}
    columns = [Column("topology", "network", numeric=False), Column("label", "method", numeric=False)]
    columns += [Column(key, heading, scales[key].unit) for key, heading, _, _ in _COSTS]
    columns.append(Column("n", "n"))
    rows = []
    for group, topology in study.places:
        for label in study.labels:
            runs = [int(run) for run in study.at(group, topology, label)["run"] if int(run) in struck]
            if not runs:
                continue
            row = {"topology": Value(topology, study.place_name(group, topology)), "label": Value(label, label)}
            for key, _, _, cost in _COSTS:
                found = summarise([cost(struck[run]) for run in runs])
                row[key] = Value(found.median, scales[key].of(found.median), runs=tuple(runs)) if found else EMPTY
            row["n"] = Value(len(runs), str(len(runs)), runs=tuple(runs))
            rows.append(row)
    caption = "What the suite's faults cost: medians over valid runs, of each run the longest detection and recovery. "
    caption += "Tokens are lost with a worker, or made anew. The same seed means the same misfortune for every method."
    return Table("faults", "Misfortune and its cost", caption, tuple(columns), tuple(rows))
