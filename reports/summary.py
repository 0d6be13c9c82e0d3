"""The tables of a study: methods by network, memory, convergence, links, runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.statistics import Quartiles, summarise
from reports.study import Study
from reports.style.quantities import NARROW, Scale, digits, scale_for, show_p
from reports.style.tables import EMPTY, Column, Raw, Table, Value


@dataclass(frozen=True)
class _Measure:
    key: str
    heading: str
    quantity: str


_MEASURES = (
    _Measure("seconds_to_level", "time to loss", "s"),
    _Measure("wall_seconds", "wall time", "s"),
    _Measure("compute_utilisation", "CU", "%"),
    _Measure("communication_seconds", "exposed communication", "s"),
    _Measure("payload_bytes_per_worker", "payload / worker", "B"),
    _Measure("wire_bytes_per_worker", "wire / worker", "B"),
    _Measure("memory_bytes", "memory", "B"),
    _Measure("final_loss", "final loss", ""),
)


def methods_table(study: Study) -> Table:
    """One row for each network and method: medians over valid runs, quartiles beside them where there are several."""
    scales = {m.key: scale_for(m.quantity, study.runs[m.key].dropna()) for m in _MEASURES}
    columns = [Column("label", "method", numeric=False), Column("topology", "network", numeric=False)]
    for place, measure in enumerate(_MEASURES):
        columns.append(Column(measure.key, measure.heading, scales[measure.key].unit))
        if place == 0:
            columns.append(Column("speedup", "speed-up"))
    overran = (study.runs["overrun_share"] > 0).any()
    if overran:
        columns.append(Column("overrun_share", "slots overrun", "%"))
    columns.append(Column("n", "n"))
    rows, extra = [], []
    for group, topology in study.places:
        for label in study.labels:
            runs = study.at(group, topology, label)
            if not len(runs):
                continue
            indices = tuple(int(run) for run in runs["run"])
            row = {"topology": Value(topology, study.place_name(group, topology)), "label": Value(label, label)}
            more: dict[str, Raw] = {"group": group}
            for measure in _MEASURES:
                values = [None if pd.isna(value) else float(value) for value in runs[measure.key]]
                found, scale = summarise(values), scales[measure.key]
                row[measure.key] = _value(found, scale, indices, values, measure)
                more |= {f"{measure.key}_q1": found.low, f"{measure.key}_q3": found.high} if found else {}
            if runs["at_first"].any() and row["seconds_to_level"].raw is not None:
                value = row["seconds_to_level"]
                row["seconds_to_level"] = Value(value.raw, f"≤ {value.text}", value.spread, value.runs)
            for end in ("low", "high"):
                more[f"seconds_to_level_{end}"] = float(runs[f"seconds_to_level_{end}"].median())
            share = float(runs["overrun_share"].median())
            row["overrun_share"] = Value(share, f"{100 * share:.1f}", runs=indices)
            row["speedup"], compared = _speedup(study, group, topology, label, indices)
            row["n"] = Value(len(runs), str(len(runs)), runs=indices)
            rows.append(row)
            extra.append(more | compared)
    caption = f"{levels(study)} {comparison_words(study)} CU: compute time over wall time. Time to loss leaves out "
    caption += "evaluation and checkpoints, and is interpolated between evaluations (≤: reached at the first one, an "
    caption += "upper bound). Medians over valid runs; in brackets the quartiles, "
    caption += "where they differ in the digits shown."
    if (study.runs.groupby("group")["tokens"].nunique() > 1).any():
        caption += " Runs stopped after different numbers of tokens, so wall time and bytes are not for equal work."
    if overran:
        caption += (
            " Slots overrun: paced steps that took longer than their slot, because the host was too slow; they add "
        )
        caption += "to the method's time."
    return Table("methods", "Methods by network", caption, tuple(columns), tuple(rows), tuple(extra))


def _value(
    found: Quartiles | None, scale: Scale, runs: tuple[int, ...], values: Sequence[float | None], measure: _Measure
) -> Value:
    if found is None:
        reached = sum(value is not None for value in values)
        if measure.key == "seconds_to_level":
            return Value(None, "not reached" if not reached else f"{reached} of {len(values)} reached it", runs=runs)
        return Value(None, "–", runs=runs)
    show: Callable[[float], str] = (lambda v: f"{v:.3f}") if measure.key == "final_loss" else scale.of
    return Value(found.median, show(found.median), _spread(show(found.low), show(found.high)), runs)


def _spread(low: str, high: str) -> str:
    """Nothing where the digits shown do not differ."""
    return f"[{low}, {high}]" if low != high else ""


def _speedup(
    study: Study, group: str, topology: str, label: str, runs: tuple[int, ...]
) -> tuple[Value, dict[str, Raw]]:
    if label == study.collection.baselines[group]:
        return Value(1.0, "1", runs=runs), {}
    found = study.against_baseline(group, topology, label, "seconds_to_level")
    if found is None:
        return EMPTY, {}
    more: dict[str, Raw] = {"speedup_low": found.low, "speedup_high": found.high, "speedup_p": found.p}
    spread = _spread(digits(found.low), digits(found.high)) if found.low is not None and found.high is not None else ""
    return Value(found.ratio, f"{digits(found.ratio)}×", spread, runs), more | {"speedup_pairs": found.n}


def levels(study: Study) -> str:
    """'Time to held-out loss 1.900 (the suite's target).'"""
    words = {group: level.words for group, level in study.levels.items()}
    if len(set(words.values())) == 1:
        return f"Time to {next(iter(words.values()))}."
    return "Time to " + "; ".join(f"{group}: {text}" for group, text in words.items()) + "." if words else ""


def comparison_words(study: Study) -> str:
    """What the speed-up is over, and how sure it can be."""
    baselines = study.collection.baselines
    over = ", ".join(sorted(set(baselines.values())))
    seeds = int(study.runs.groupby(["group", "topology", "label"])["seed"].nunique().max()) if len(study.runs) else 0
    words = f"Speed-up: time of {over} over that of the method, runs paired by seed"
    if seeds < 2:
        return f"{words}; with one seed there is no interval and no test."
    floor = show_p(2.0 ** (1 - seeds))
    interval = "in brackets the 95 % bootstrap interval; " if seeds >= 3 else ""
    return f"{words}; {interval}with {seeds} seeds the permutation test's p cannot fall below {floor}."


def memory_table(study: Study) -> Table:
    """Counted persistent bytes by component, at the worker that holds most."""
    data = study.memory.groupby(["group", "label", "component"], as_index=False, sort=False)[
        ["bytes", "predicted"]
    ].max()
    components = [str(name) for name in dict.fromkeys(data["component"])]
    totals = data.groupby(["group", "label"], sort=False)[["bytes", "predicted"]].sum()
    scale = scale_for("B", totals["bytes"])
    columns = [Column("label", "method", numeric=False)]
    columns += [Column(name, name.replace("_", " "), scale.unit) for name in components]
    columns += [Column("total", "total", scale.unit), Column("predicted", "predicted", scale.unit)]
    columns += [Column("peak_rss", "peak resident set", scale.unit)]
    rows: list[dict[str, Value]] = []
    for group in study.groups:
        for label in study.labels:
            mine = data[(data["group"] == group) & (data["label"] == label)].set_index("component")
            if not len(mine):
                continue
            runs = study.at(group, label=label)
            indices = tuple(int(run) for run in runs["run"])
            name = label if len(study.groups) == 1 else f"{group}: {label}"
            row = {"label": Value(label, name)}
            for component in components:
                held = int(mine["bytes"].get(component, 0))
                row[component] = Value(held, scale.of(held) if held else "–", runs=indices)
            for key, column in (("total", "bytes"), ("predicted", "predicted")):
                total = float(totals[column].to_dict()[group, label])
                row[key] = Value(total, scale.of(total), runs=indices)
            peak = float(runs["peak_rss_bytes"].max())
            row["peak_rss"] = Value(peak, scale.of(peak), runs=indices)
            rows.append(row)
    caption = (
        "Persistent tensors of the worker that holds most, counted; predicted: from sizes alone. The peak resident "
    )
    caption += "set of its process also has the interpreter, torch and activations in it."
    return Table("memory", "Memory of a worker", caption, tuple(columns), tuple(rows))


def convergence_table(study: Study) -> Table:
    """Whether any method ends better than its baseline by more than chance allows."""
    columns = (
        Column("label", "method", numeric=False),
        Column("baseline", "baseline", numeric=False),
        Column("difference", "final loss minus baseline's", "nats/token"),
        Column("p", "p (better by chance)"),
        Column("n", "seeds"),
        Column("detectable", "detectable", "nats/token"),
        Column("verdict", "verdict", numeric=False),
    )
    rows = []
    for group in study.groups:
        baseline = study.collection.baselines[group]
        for label in study.labels:
            runs = study.at(group, label=label)
            if label == baseline or not len(runs):
                continue
            found = study.convergence(group, label)
            verdict = {
                None: "not testable: fewer than 3 seeds with the same tokens",
                False: "no better than it should be",
            }
            words = verdict.get(found.suspicious, "BETTER THAN ITS REFERENCE: look for a fault before a discovery")
            shown = "–" if found.difference is None else f"{found.difference:+.3f}"
            name = label if len(study.groups) == 1 else f"{group}: {label}"
            rows.append(
                {
                    "label": Value(label, name),
                    "baseline": Value(baseline, baseline),
                    "difference": Value(found.difference, shown, runs=tuple(int(run) for run in runs["run"])),
                    "p": Value(found.p, show_p(found.p)),
                    "n": Value(found.n, str(found.n)),
                    "detectable": EMPTY
                    if found.detectable is None
                    else Value(found.detectable, f"{found.detectable:.3f}"),
                    "verdict": Value(words, words),
                }
            )
    caption = (
        "A method that sends less should at best match the baseline after the same tokens. Flagged where it ends lower "
    )
    caption += "by more than the seeds' spread allows (one-sided paired t-test, 1 %). "
    caption += "Detectable: what so many seeds find with a probability of 80 %, at the spread found here."
    return Table("convergence", "Convergence check", caption, columns, tuple(rows))


def runs_table(study: Study) -> Table:
    """Every finished run, the invalid ones too."""
    columns = (
        Column("run", "run", numeric=False),
        Column("topology", "network", numeric=False),
        Column("label", "method", numeric=False),
        Column("seed", "seed"),
        Column("seconds", "wall time", "s"),
        Column("loss", "final loss"),
        Column("where", "emulated on", numeric=False),
        Column("state", "state", numeric=False),
    )
    rows = []
    for row in study.everything.to_dict("records"):
        run = study.stored[int(row["run"])]
        state = "; ".join(["valid", *run.result.caveats])
        if not row["valid"]:
            state = f"invalid: {row['why_invalid'] or 'no reason was recorded'}"
        loss = row["final_loss"]
        rows.append(
            {
                "run": Value(str(run.directory.name), run.directory.name, runs=(int(row["run"]),)),
                "topology": Value(row["topology"], study.place_name(row["group"], row["topology"])),
                "label": Value(row["label"], row["label"]),
                "seed": Value(row["seed"], str(row["seed"])),
                "seconds": Value(row["wall_seconds"], digits(row["wall_seconds"])),
                "loss": EMPTY if pd.isna(loss) else Value(loss, f"{loss:.3f}"),
                "where": Value(row["substrate"], f"{row['substrate']},{NARROW}{row['engine']}"),
                "state": Value(state, state),
            }
        )
    return Table("runs", "All runs", "Every finished run; only valid ones count above.", columns, tuple(rows))
