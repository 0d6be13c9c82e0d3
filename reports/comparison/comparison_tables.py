"""A comparison as tables, for the terminal and the page, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.comparison.metrics import METRICS, Threshold
from reports.comparison.record_comparison import Change, RecordComparison
from reports.style.tables import EMPTY, Column, Table, Value, text_table

_MOST_MODULES = 6  # that are named for one method


def overall_table(comparison: RecordComparison) -> Table:
    """One row per method, all networks together."""
    caption = (
        "B against A, paired by method, network and seed; a change is a difference (loss, compute utilisation) or a "
        "factor B/A: the mean over networks and seeds, with its 95 % interval (both resampled) from three pairs on."
    )
    return _table("overall", "Changes by method", caption, comparison, comparison.overall)


def network_table(comparison: RecordComparison) -> Table:
    """One row per method and network, with what so many seeds could have seen."""
    caption = (
        "Medians of A and B, and the mean change over seeds with its 95 % interval. Detectable: the smallest change "
        "that this many seeds find with a probability of 80 % at a significance of 5 %, at the spread found here."
    )
    return _table("networks", "Changes by method and network", caption, comparison, comparison.changes)


def _table(name: str, title: str, caption: str, comparison: RecordComparison, changes: Sequence[Change]) -> Table:
    several = len({change.suite for change in changes}) > 1
    columns = [
        *([Column("suite", "suite", numeric=False)] if several else []),
        Column("label", "method", numeric=False),
        *([Column("topology", "network", numeric=False)] if name == "networks" else []),
        Column("metric", "", numeric=False),
        Column("a", "A"),
        Column("b", "B"),
        Column("change", "change"),
        Column("interval", "95 % interval", numeric=False),
        Column("n", "pairs"),
        *([Column("detectable", "detectable")] if name == "networks" else []),
    ]
    return Table(name, title, caption, tuple(columns), tuple(_row(change) for change in changes))


def _row(change: Change) -> dict[str, Value]:
    metric, found = change.metric, change.estimate
    interval = EMPTY
    if found.low is not None and found.high is not None:
        text = f"{metric.change_text(found.low)} to {metric.change_text(found.high)}"
        interval = Value(text, text)
    detectable = EMPTY
    if change.detectable is not None:
        shown = metric.change_text(change.detectable)
        detectable = Value(metric.shown(change.detectable), shown)
    return {
        "suite": Value(change.suite, change.suite),
        "label": Value(change.label, change.label),
        "topology": Value(change.topology, change.topology),
        "metric": Value(metric.key, metric.heading),
        "a": Value(change.a, metric.value_text(change.a)),
        "b": Value(change.b, metric.value_text(change.b)),
        "change": Value(metric.shown(found.value), metric.change_text(found.value)),
        "interval": interval,
        "n": Value(found.n, str(found.n)),
        "detectable": detectable,
    }


def settings_tables(comparison: RecordComparison) -> list[Table]:
    """What differs in settings, environment and code; none where nothing does."""
    settings = comparison.settings
    columns = [Column(key, heading, numeric=False) for key, heading in (("field", ""), ("a", "A"), ("b", "B"))]
    columns.append(Column("pairs", "pairs"))
    tables = []
    for name, title, found in (
        ("settings", "Settings that differ", settings.settings),
        ("environment", "Environment that differs", settings.environment),
    ):
        if found:
            rows = [(one.field, one.a, one.b, str(one.pairs)) for one in found]
            tables.append(text_table(name, title, "", columns, rows))
    if settings.code:
        heads = (("label", "method"), ("a", "A"), ("b", "B"), ("modules", "modules that differ"))
        rows = [(one.label, one.a, one.b, _modules(one.modules)) for one in settings.code]
        caption = (
            f"Hashes of what each method's runs executed. Commits: A {settings.commits[0]}, B {settings.commits[1]}."
        )
        heading = [Column(key, text, numeric=False) for key, text in heads]
        tables.append(text_table("code", "Code that differs", caption, heading, rows))
    return tables


def _modules(modules: Sequence[str] | None) -> str:
    if modules is None:
        return "not recorded"
    if not modules:
        return "none: another torch or Python"
    more = len(modules) - _MOST_MODULES
    return ", ".join(modules[:_MOST_MODULES]) + (f" and {more} more" if more > 0 else "")


def failures(comparison: RecordComparison, thresholds: Sequence[Threshold]) -> list[str]:
    """Each method whose change, over all networks, crosses a threshold; and, with one, each run that B lacks."""
    if not thresholds:
        return []
    found = [
        f"{change.label}: {change.metric.heading} {change.metric.change_text(change.estimate.value)} "
        f"({change.estimate.n} pairs) crosses {threshold.text}"
        for threshold in thresholds
        for change in comparison.overall
        if change.metric == threshold.metric and threshold.crossed(change.estimate.value)
    ]
    return found + [f"{name}: no valid run in B" for name in comparison.only_a]


def comparison_json(comparison: RecordComparison, failed: Sequence[str] = ()) -> dict[str, Any]:
    """For programs: differences in nats and shares, ratios as B/A."""
    settings = comparison.settings
    return {
        "a": comparison.names[0],
        "b": comparison.names[1],
        "pairs": comparison.pairs,
        "metrics": {metric.key: {"column": metric.column, "kind": metric.kind} for metric in METRICS},
        "overall": [_change_json(change) for change in comparison.overall],
        "changes": [_change_json(change) for change in comparison.changes],
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
        "environment": [vars(one) for one in settings.environment],
        "settings": [vars(one) for one in settings.settings],
        "code": [vars(one) for one in settings.code],
        "commits": list(settings.commits),
        "failed": list(failed),
    }


def _change_json(change: Change) -> dict[str, Any]:
    shown, found = change.metric.shown, change.estimate
    return {
        "suite": change.suite,
        "label": change.label,
        "topology": change.topology or None,
        "metric": change.metric.key,
        "a": change.a,
        "b": change.b,
        "change": shown(found.value),
        "low": None if found.low is None else shown(found.low),
        "high": None if found.high is None else shown(found.high),
        "pairs": found.n,
        "detectable": None if change.detectable is None else shown(change.detectable),
    }
