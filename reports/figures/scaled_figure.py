"""Scaled emulation beside the projection of what it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.figures.conditions import conditions, repeats
from reports.study import Study
from reports.style.drawing import DOUBLE, Drawing, linear_axis, plain
from reports.style.palette import fills_of
from reports.style.quantities import scale_for

_TOKENS = 1e6  # times are for so many tokens of the target, since methods differ in what a step trains on
_PARTS = ("computation", "exposed communication")


def measured_beside_projected(study: Study) -> Drawing | None:
    """Two bars for each network and method: the run in target time, and the projection."""
    data = _seconds(study)
    if not len(data):
        return None
    rows = data[["topology", "label", "which"]].drop_duplicates().to_dict("records")
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.17 * len(rows)))
    axes = figure.subplots()
    scale = scale_for("s", data.groupby(["topology", "label", "which"])["seconds_per_million_tokens"].sum())
    positions = [y + 0.4 * (y // 2) for y in range(len(rows))]
    left = np.zeros(len(rows))
    fills = fills_of(_PARTS)
    for part in _PARTS:
        widths = data.loc[data["part"] == part, "seconds_per_million_tokens"].to_numpy()
        axes.barh(positions, widths, left=left, height=0.8, linewidth=0.3, **fills[part].keywords)
        left += widths
    several = data["topology"].nunique() > 1
    axes.set_yticks(positions, [plain(_name(row, several)) for row in rows])
    axes.set_ylim(max(positions) + 0.7, -0.7)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(left) * 1.02)
    linear_axis(axes, "x", scale)
    axes.set_xlabel(f"target time for a million tokens ({scale.unit})")
    handles = [Patch(label=part, **fills[part].keywords) for part in _PARTS]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    caption = "What small models on real packets took, in the time of what they stand for, and the cost model's "
    caption += f"projection of the same steps. {repeats(study)} {conditions(study)}"
    return Drawing("scaled", "Scaled emulation against projection", caption, figure, data)


def _name(row: dict[Any, Any], several: bool) -> str:
    where = f" on {row['topology']}" if several else ""
    return f"{row['label']}{where}, {row['which']}"


def _seconds(study: Study) -> pd.DataFrame:
    """One row for each network, method, bar and part; medians over runs."""
    rows = []
    for group, topology in study.places:
        for label in study.labels:
            frame = study.standing
            mine = frame[(frame["group"] == group) & (frame["topology"] == topology) & (frame["label"] == label)]
            if not len(mine):
                continue
            millions = mine["target_tokens"] / _TOKENS
            for which, prefix in (("measured", "target"), ("projected", "projected")):
                waiting = mine[f"{prefix}_communication_seconds"]
                for part, seconds in zip(_PARTS, (mine[f"{prefix}_seconds"] - waiting, waiting), strict=True):
                    value = float((seconds / millions).median())
                    names = {"topology": study.place_name(group, topology), "label": label, "which": which}
                    rows.append({**names, "part": part, "seconds_per_million_tokens": value})
    return pd.DataFrame(rows)
