"""How long a method takes to a loss, and where its time goes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.records import BUCKETS
from reports.drawing import DOUBLE, FILLS, Drawing, legend, linear_axis, log_axis, plain
from reports.figures.conditions import conditions, looks_of, networks, repeats
from reports.quantities import axis_scale, scale_for, show
from reports.statistics import summarise
from reports.study import Study


def time_to_loss(study: Study) -> Drawing | None:
    """One row for each network, one mark for each method; a loss that was not reached is a hollow mark at the edge."""
    rows = []
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
            row |= {"seconds": found.median, "low": found.low, "high": found.high} if found else {}
            rows.append(row)
    data = pd.DataFrame(rows)
    if "seconds" not in data:
        return None
    places = [place for place in study.places if len(data[_is(data, place)])]
    styles, labels = looks_of(study), [label for label in study.labels if label in set(data["label"])]
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.16 * len(places) * max(2, len(labels)) + 0.1 * len(places)))
    axes = figure.subplots()
    scale = axis_scale("s", data["seconds"])
    edge = float(data["seconds"].max()) * 1.6
    offsets = np.linspace(-0.34, 0.34, len(labels)) if len(labels) > 1 else [0.0]
    for place_index, place in enumerate(places):
        if place_index % 2:
            axes.axhspan(place_index - 0.5, place_index + 0.5, color="#9a9a9a", alpha=0.12, linewidth=0)
        for label, offset in zip(labels, offsets, strict=True):
            for found_row in data[_is(data, place) & (data["label"] == label)].to_dict("records"):
                _mark(axes, found_row, place_index + offset, edge, styles[label].colour, styles[label].marker)
    axes.set_yticks(range(len(places)), [plain(study.place_name(*place)) for place in places])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xscale("log")
    axes.set_xlim(right=edge * (1.12 if data["seconds"].isna().any() else 0.95))
    log_axis(axes, "x", scale)
    axes.set_xlabel(f"training time to the loss ({scale.unit})")
    if data["seconds"].isna().any():
        axes.axvline(edge / 1.13, color="#7f7f7f", linewidth=0.7, linestyle=(0, (2, 2)))
        axes.annotate(
            "not reached",
            (edge, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -17),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    legend(figure, styles, labels, line=False)
    words = "; ".join(dict.fromkeys(study.levels[group].words for group in study.groups if group in study.levels))
    caption = (
        f"Training time until {words}. Median and quartiles. {networks(study)}. {repeats(study)} {conditions(study)}"
    )
    return Drawing("time-to-loss", "Time to the same loss", caption, figure, data)


def _is(data: pd.DataFrame, place: tuple[str, str]) -> pd.Series:
    return (data["group"] == place[0]) & (data["topology"] == place[1])


def _mark(axes: Axes, row: Mapping[Hashable, Any], y: float, edge: float, colour: str, marker: str) -> None:
    seconds = float(row["seconds"])
    if not np.isfinite(seconds):
        axes.plot(edge, y, marker=marker, color=colour, markerfacecolor="none", linestyle="none", markersize=4.5)
        return
    axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.2)
    axes.plot(seconds, y, marker=marker, color=colour, linestyle="none", markersize=4.5)
    axes.annotate(
        show(seconds, "s"), (seconds, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=6.5
    )


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
    positions = _positions([place for place, _ in rows])
    left = np.zeros(len(rows))
    for bucket, (colour, hatch) in zip(buckets, FILLS, strict=False):
        chosen = data[data["bucket"] == bucket].set_index(["group", "topology", "label"])["seconds"]
        widths = np.array([chosen.get((*place, label), 0.0) for place, label in rows])
        axes.barh(
            positions, widths, left=left, height=0.8, color=colour, hatch=hatch, edgecolor="#1a1a1a", linewidth=0.3
        )
        left += widths
    axes.set_yticks(positions, [plain(label) for _, label in rows])
    axes.set_ylim(max(positions) + 0.7, -1.1)
    axes.grid(visible=False, axis="y")
    for place in dict.fromkeys(place for place, _ in rows):
        first = next(y for y, (other, _) in zip(positions, rows, strict=True) if other == place)
        axes.text(0.0, first - 0.72, plain(study.place_name(*place)), fontweight="bold", fontsize=7, va="center")
    axes.set_xlim(0, max(left) * 1.02)
    linear_axis(axes, "x", scale)
    axes.set_xlabel(f"wall time ({scale.unit})")
    handles = [
        Patch(facecolor=c, hatch=h, edgecolor="#1a1a1a", label=b) for b, (c, h) in zip(buckets, FILLS, strict=False)
    ]
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
