"""How well the model foretells what was then measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.figures.conditions import conditions, styles_of
from reports.study import Study
from reports.style.drawing import Drawing, legend, log_axis, panels
from reports.style.palette import GREY
from reports.style.quantities import axis_scale

_QUANTITIES = (
    ("seconds", "s", "wall time"),
    ("payload", "B", "payload per worker"),
    ("memory", "B", "persistent memory"),
)


def predicted_against_measured(study: Study) -> Drawing | None:
    """Wall time as the cost model expects it; bytes as the records have them planned and counted."""
    runs = study.runs
    parts = [
        _points(runs, "payload", "payload_bytes_per_worker", runs["planned_payload_bytes_per_worker"]),
        _points(runs, "memory", "memory_bytes", runs["predicted_memory_bytes"]),
    ]
    if study.predictions is not None and len(study.predictions.frame):
        timed = runs.merge(study.predictions.frame, on="run")
        parts.append(_points(timed, "seconds", "wall_seconds", timed["predicted_wall_seconds"]))
    data = pd.concat(parts, ignore_index=True)
    data = data[(data["measured"] > 0) & (data["predicted"] > 0)]
    shown = [quantity for quantity in _QUANTITIES if quantity[0] in set(data["quantity"])]
    if not shown:
        return None
    styles, labels = styles_of(study), [label for label in study.labels if label in set(data["label"])]
    figure, axes = panels(len(shown), height=2.3, share=False)
    words = []
    for (name, unit, title), panel in zip(shown, axes, strict=True):
        mine = data[data["quantity"] == name]
        low, high = (float(f(mine[["measured", "predicted"]].to_numpy())) for f in (np.min, np.max))
        ends = [low / 1.5, high * 1.5]
        panel.plot(ends, ends, color=GREY, linewidth=0.8)
        for label in labels:
            points = mine[mine["label"] == label]
            look = {**styles[label].keywords, "linestyle": "none", "alpha": 0.8}
            panel.plot(points["measured"], points["predicted"], **look)
        scale = axis_scale(unit, ends)
        for which in ("x", "y"):
            log_axis(panel, which, scale)
        panel.set_title(title)
        panel.set_xlabel(f"measured ({scale.unit})")
        panel.set_ylabel(f"predicted ({scale.unit})")
        words.append(f"{title}: {_error(mine)}")
    legend(figure, styles, labels, line=False)
    caption = f"One mark for each run; on the line both agree. {'; '.join(words)}. "
    if study.predictions is not None:
        caption += f"Time is predicted from {study.predictions.basis}. "
    return Drawing("prediction", "Predicted against measured", caption + conditions(study), figure, data)


def _points(runs: pd.DataFrame, quantity: str, measured: str, predicted: pd.Series) -> pd.DataFrame:
    names = runs[["group", "topology", "label", "seed"]]
    return names.assign(quantity=quantity, measured=runs[measured], predicted=predicted)


def _error(points: pd.DataFrame) -> str:
    signed = points["predicted"] / points["measured"] - 1
    errors = signed.abs()
    if errors.max() == 0:
        return f"equal to the byte in {len(points)} runs"
    return f"mean error {signed.mean():+.1%}, mean absolute {errors.mean():.1%}, largest {errors.max():.1%}"
