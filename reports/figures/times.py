"""How long a method takes to a loss, and where its time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.records.run_record import BUCKETS
from reports.figures.conditions import conditions, networks, repeats, styles_of
from reports.statistics import summarise
from reports.study import Study
from reports.style.drawing import DOUBLE, Drawing, linear_axis, log_axis, plain
from reports.style.palette import GREY, SeriesStyle, fills_of
from reports.style.quantities import axis_scale, scale_for, show


def time_to_loss(study: Study) -> Drawing | None:
    """One row for each network and method; a loss that some run did not reach is a hollow mark at the edge."""
    rows: list[dict[str, Any]] = []
    for group, topology in study.places:
        for label in study.labels:
            runs = study.at(group, topology, label)
            if not len(runs) or group not in study.levels:
                continue
            found = summarise(runs["seconds_to_level"].tolist())
            reached = int(runs["seconds_to_level"].notna().sum())
            row: dict[str, Any] = {
                "group": group,
                "topology": topology,
                "label": label,
                "loss": study.levels[group].loss,
            }
            row |= {"runs": len(runs), "reached": reached}
            rows.append(row | ({"seconds": found.median, "low": found.low, "high": found.high} if found else {}))
    data = pd.DataFrame(rows)
    if "seconds" not in data:
        return None
    styles, scale = styles_of(study), axis_scale("s", data["seconds"])
    missed = bool(data["seconds"].isna().any())
    wide = data["seconds"].max() > 5 * data["seconds"].min()
    edge = float(data["seconds"].max()) * (1.6 if wide else 1.2)
    figure = Figure(figsize=(DOUBLE, 0.55 + 0.16 * len(rows) + 0.15 * len(study.places)))
    axes = figure.subplots()
    axes.set_xscale("log" if wide else "linear")
    positions = _rows(axes, study, [((row["group"], row["topology"]), str(row["label"])) for row in rows])
    for y, row in zip(positions, rows, strict=True):
        _mark(axes, row, y, edge, styles[row["label"]])
    axes.set_xlim(left=None if wide else 0, right=edge * (1.12 if missed else 0.95))
    (log_axis if wide else linear_axis)(axes, "x", scale)
    axes.set_xlabel(f"training time to the loss ({scale.unit})")
    if missed:
        axes.axvline(edge / (1.13 if wide else 1.05), color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
        top = ("data", "axes fraction")
        axes.annotate("not reached", (edge, 1.0), xycoords=top, ha="center", va="bottom", fontsize=6.5)
    words = "; ".join(dict.fromkeys(study.levels[group].words for group in study.groups if group in study.levels))
    caption = f"Training time until {words}. Median and quartiles. "
    caption += "Hollow: not every run reached it. " if missed else ""
    caption += f"{networks(study)}. {repeats(study)} {conditions(study)}"
    return Drawing("time-to-loss", "Time to the same loss", caption, figure, data)


def _is(data: pd.DataFrame, place: tuple[str, str]) -> pd.Series:
    return (data["group"] == place[0]) & (data["topology"] == place[1])


def _mark(axes: Axes, row: Mapping[str, Any], y: float, edge: float, look: SeriesStyle) -> None:
    seconds = float(row.get("seconds", "nan"))
    style: dict[str, Any] = {"marker": look.marker, "color": look.colour, "linestyle": "none", "markersize": 4.5}
    style |= {"gid": look.gid}
    if not np.isfinite(seconds):
        axes.plot(edge, y, markerfacecolor="none", **style)
        return
    axes.plot([row["low"], row["high"]], [y, y], color=look.colour, linewidth=1.2, gid=look.gid)
    axes.plot(seconds, y, **style)
    text, beside = show(seconds, "s"), max(seconds, float(row["high"]))
    axes.annotate(text, (beside, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=6.5, gid=look.gid)


def _rows(axes: Axes, study: Study, rows: Sequence[tuple[tuple[str, str], str]]) -> list[float]:
    """Positions of one row for each (network, method), with the methods as ticks and the networks as headings."""
    positions = _positions([place for place, _ in rows])
    axes.set_yticks(positions, [plain(label) for _, label in rows])
    axes.set_ylim(max(positions) + 0.7, -1.1)
    axes.grid(visible=False, axis="y")
    left = axes.get_yaxis_transform()  # x as a share of the axis, y as data
    for place in dict.fromkeys(place for place, _ in rows):
        first = next(y for y, (other, _) in zip(positions, rows, strict=True) if other == place)
        name = plain(study.place_name(*place))
        axes.text(0.004, first - 0.76, name, fontweight="bold", fontsize=7, va="center", transform=left)
    return positions


def where_time_went(study: Study) -> Drawing | None:
    """A stacked bar for each method and network, in the buckets that every step is timed in."""
    data = study.buckets.groupby(["group", "topology", "label", "bucket"], as_index=False)[["seconds"]].median()
    if not len(data):
        return None
    rows = [
        (place, label)
        for place in study.places
        for label in study.labels
        if len(data[_is(data, place) & (data["label"] == label)])
    ]
    totals = data.groupby("bucket")["seconds"].sum()
    buckets = [name for name in (*BUCKETS, "other") if totals.get(name, 0.0) > 1e-3 * totals.sum()]
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.17 * len(rows)))
    axes = figure.subplots()
    scale = scale_for("s", study.runs["wall_seconds"])
    positions = _rows(axes, study, rows)
    left = np.zeros(len(rows))
    fills, styles = fills_of(buckets), styles_of(study)
    for bucket in buckets:
        chosen = data[data["bucket"] == bucket].set_index(["group", "topology", "label"])["seconds"]
        widths = np.array([chosen.get((*place, label), 0.0) for place, label in rows])
        bars = axes.barh(positions, widths, left=left, height=0.8, linewidth=0.3, **fills[bucket].keywords)
        for bar, (_, label) in zip(bars, rows, strict=True):
            bar.set_gid(styles[label].gid)
        left += widths
    axes.set_xlim(0, max(left) * 1.02)
    linear_axis(axes, "x", scale)
    axes.set_xlabel(f"wall time ({scale.unit})")
    handles = [Patch(label=bucket, **fills[bucket].keywords) for bucket in buckets]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(7, len(handles)))
    caption = "Where the wall time went: mean over workers, median over runs. Communication is what a step waited for; "
    caption += f"pacing is the rest of a paced step, and counts as compute. {networks(study)}. "
    return Drawing(
        "where-time-went", "Where the time went", caption + f"{repeats(study)} {conditions(study)}", figure, data
    )


def _positions(places: list[tuple[str, str]]) -> list[float]:
    """Bars of one network together, a gap with room for its name before each network."""
    y, found = -1.0, []
    for index, place in enumerate(places):
        y += 1.0 if index and place == places[index - 1] else (1.9 if index else 1.0)
        found.append(y)
    return found
