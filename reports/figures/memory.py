"""What a site must hold."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.figures.conditions import conditions
from reports.study import Study
from reports.style.drawing import DOUBLE, SINGLE, Drawing, linear_axis, plain
from reports.style.palette import INK, fills_of
from reports.style.quantities import scale_for


def memory_by_component(study: Study) -> Drawing | None:
    """Counted persistent bytes of the worker that holds most, stacked; a tick marks what was predicted."""
    data = study.memory.groupby(["group", "label", "component"], as_index=False, sort=False)[
        ["bytes", "predicted"]
    ].max()
    if not len(data):
        return None
    rows = [
        (group, label)
        for group in study.groups
        for label in study.labels
        if len(data[(data["group"] == group) & (data["label"] == label)])
    ]
    components = [str(name) for name in data.groupby("component", sort=False)["bytes"].sum().index]
    totals = data.groupby(["group", "label"])[["bytes", "predicted"]].sum()
    scale = scale_for("B", totals["bytes"])
    legend_rows = -(-len(components) // 3)
    names = [plain(label if len(study.groups) == 1 else f"{group}: {label}") for group, label in rows]
    width = SINGLE if max(map(len, names)) < 16 else DOUBLE
    figure = Figure(figsize=(width, 0.75 + 0.22 * len(rows) + 0.14 * legend_rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    fills = fills_of(components)
    for component in components:
        chosen = data[data["component"] == component].set_index(["group", "label"])["bytes"]
        widths = np.array([float(chosen.get(row, 0)) for row in rows])
        axes.barh(
            range(len(rows)),
            widths,
            left=left,
            height=0.72,
            linewidth=0.3,
            **fills[component].keywords,
        )
        left += widths
    predicted = [float(totals["predicted"].to_dict()[row]) for row in rows]
    for y in range(len(rows)):
        axes.plot([predicted[y]] * 2, [y - 0.46, y + 0.46], color=INK, linewidth=1.4)
    axes.set_xlim(0, 1.03 * max([*left, *predicted]))  # room for the last mark
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    linear_axis(axes, "x", scale)
    axes.set_xlabel(f"persistent memory of a worker ({scale.unit})")
    handles: list[Patch | Line2D] = [Patch(label=_words(name), **fills[name].keywords) for name in components]
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="predicted"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=6.5, columnspacing=1.0, handlelength=1.6)
    caption = "Counted bytes of persistent tensors by component, at the worker that holds most; the line marks the "
    caption += f"prediction from sizes alone. Activations and the interpreter are not in it. {conditions(study)}"
    return Drawing("memory", "Memory by component", caption, figure, data)


def _words(name: str) -> str:
    return plain(name.replace("_", " "))
