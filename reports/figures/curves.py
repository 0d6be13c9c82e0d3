"""Held-out loss against what it cost: time, tokens, bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.figures.conditions import MOST_PANELS, conditions, repeats, styles_of
from reports.study import Study
from reports.style.drawing import Drawing, legend, linear_axis, log_axis, panels, plain
from reports.style.palette import GREY, SeriesStyle
from reports.style.quantities import scale_for

_KEYS = ["group", "topology", "label", "step"]


def loss_against_time(study: Study) -> Drawing | None:
    """One panel for each network, since only time depends on it."""
    return _draw(
        study,
        _each_network(study),
        "seconds",
        "s",
        "training time",
        "loss-time",
        "Loss against training time",
        "Held-out loss against training time (wall time without evaluation and checkpoints)",
    )


def loss_against_tokens(study: Study) -> Drawing | None:
    return _draw(
        study,
        _one_network_each(study),
        "tokens",
        "tokens",
        "tokens, all workers",
        "loss-tokens",
        "Loss against tokens",
        "Held-out loss against the tokens that all workers together trained on; the network does not change it",
    )


def loss_against_bytes(study: Study) -> Drawing | None:
    return _draw(
        study,
        _one_network_each(study),
        "bytes",
        "B",
        "payload sent per worker",
        "loss-bytes",
        "Loss against bytes",
        "Held-out loss against the payload that a worker handed to the network (mean over workers)",
        log=True,
    )


def _one_network_each(study: Study) -> dict[tuple[str, str], pd.DataFrame]:
    """For each group the curves of every label on the first network that it ran on."""
    found = {}
    for group in study.groups:
        order = {topology: place for place, topology in enumerate(study.topologies(group))}
        mine = study.curves[study.curves["group"] == group]
        first = mine["topology"].map(order)
        found[group, ""] = mine[first == first.groupby(mine["label"]).transform("min")]
    return found


def _each_network(study: Study) -> dict[tuple[str, str], pd.DataFrame]:
    curves = study.curves
    return {p: curves[(curves["group"] == p[0]) & (curves["topology"] == p[1])] for p in study.places}


def _draw(
    study: Study,
    curves: Mapping[tuple[str, str], pd.DataFrame],
    x: str,
    quantity: str,
    axis: str,
    name: str,
    title: str,
    what: str,
    log: bool = False,
) -> Drawing | None:
    if log:  # such an axis has no place for methods that send nothing
        curves = {place: curve[curve[x] > 0] for place, curve in curves.items()}
    frames = {place: frame for place, curve in curves.items() if len(frame := middle(curve, x))}
    shown = list(frames)[:MOST_PANELS]
    if not shown:
        return None
    data = pd.concat([frames[place] for place in shown], ignore_index=True)
    styles, labels = styles_of(study), [label for label in study.labels if label in set(data["label"])]
    scale = scale_for(quantity, data[x])
    figure, axes = panels(len(shown))
    for place, panel in zip(shown, axes, strict=True):
        frame = frames[place]
        if log:
            panel.set_xscale("log")
        for label in labels:
            _curve(panel, frame[frame["label"] == label], x, styles[label])
        level = study.levels.get(place[0])
        if level is not None:
            panel.axhline(level.loss, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
        if len(shown) > 1:
            panel.set_title(plain(study.place_name(*place) if place[1] else place[0]))
        panel.set_xlabel(f"{axis} ({scale.unit})")
        (log_axis if log else linear_axis)(panel, "x", scale)
        if not log:
            panel.set_xlim(left=0)
    for left in axes[:: min(3, len(shown))]:
        left.set_ylabel("held-out loss (nats/token)")
    legend(figure, styles, labels)
    left_out = len(frames) - len(shown)
    caption = f"{what}. Median of runs, shaded from the best to the worst run. Dotted: {_levels(study)}."
    caption += f" {left_out} further panels are left out." if left_out > 0 else ""
    return Drawing(name, title, f"{caption} {repeats(study)} {conditions(study)}", figure, data)


def _levels(study: Study) -> str:
    words = list(dict.fromkeys(level.words for level in study.levels.values()))
    return "; ".join(words) if words else "none"


def middle(curves: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Medians over seeds of `columns` and loss at each evaluation, with the range of the loss.

    Steps that some run never reached are cut.
    """
    mine = curves[np.isfinite(curves["loss"])]
    medians: pd.DataFrame = mine.groupby(_KEYS, as_index=False).agg(
        **{name: (name, "median") for name in columns},
        loss=("loss", "median"),
        low=("loss", "min"),
        high=("loss", "max"),
        runs=("loss", "size"),
    )
    most = medians.groupby("label")["runs"].transform("max")
    kept: pd.DataFrame = medians.loc[medians["runs"] == most]
    return kept


def _curve(panel: Axes, frame: pd.DataFrame, x: str, look: SeriesStyle) -> None:
    if not len(frame):
        return
    every = max(1, len(frame) // 8)
    panel.plot(frame[x], frame["loss"], markevery=every, **look.keywords)
    if frame["runs"].max() > 1:
        band: dict[str, Any] = {"color": look.colour, "alpha": 0.2, "linewidth": 0, "gid": look.gid}
        panel.fill_between(frame[x], frame["low"], frame["high"], **band)
