"""Changes from A to B with their intervals, a panel per metric."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.comparison.metrics import METRICS
from reports.comparison.record_comparison import RecordComparison
from reports.style.drawing import DOUBLE, Drawing, panels, plain, report_style
from reports.style.palette import GREY, series_styles

_ROW = 0.17  # inches of a line in a panel


def change_figure(comparison: RecordComparison) -> Drawing:
    """Every method on every network: a mark for the mean change, a bar for its interval where there is one."""
    places = list(dict.fromkeys((change.label, change.topology) for change in comparison.changes))
    labels = list(dict.fromkeys(label for label, _ in places))
    styles = series_styles(labels, {label: label for label in labels})
    with report_style():
        figure, axes = panels(len(METRICS), height=0.7 + _ROW * len(places), columns=len(METRICS), share=True)
        figure.set_figwidth(DOUBLE)
        rows: list[dict[str, Any]] = []
        for metric, panel in zip(METRICS, axes, strict=True):
            panel.axvline(metric.shown(0.0), color=GREY, linewidth=0.7)
            for change in comparison.changes:
                if change.metric != metric:
                    continue
                place = len(places) - 1 - places.index((change.label, change.topology))
                found, look = change.estimate, styles[change.label]
                ends = None
                if found.low is not None and found.high is not None:
                    ends = metric.shown(found.low), metric.shown(found.high)
                    panel.plot(ends, [place, place], color=look.colour, linewidth=1.2)
                panel.plot(metric.shown(found.value), place, color=look.colour, marker=look.marker, markersize=3.5)
                row = {"label": change.label, "topology": change.topology, "metric": metric.key, "pairs": found.n}
                row |= {"change": metric.shown(found.value)}
                row |= dict(zip(("low", "high"), ends or (None, None), strict=True))
                rows.append(row)
            panel.set_title(metric.short)
            panel.set_xlabel("B - A" if metric.kind == "difference" else "B / A")
            panel.margins(x=0.15)
            panel.locator_params(axis="x", nbins=3)
        names = [plain(f"{label}, {topology}") for label, topology in reversed(places)]
        axes[0].set_yticks(range(len(places)), labels=names)
        axes[0].set_ylim(-0.7, len(places) - 0.3)
    caption = (
        "Change from A to B of each method on each network, paired by seed: mean, and its 95 % interval where there "
        "are at least three seeds. Grey: no change."
    )
    return Drawing("changes", "Changes from A to B", caption, figure, pd.DataFrame(rows))
