"""The numbers behind a page's slider and its charts, as two JSON documents that the page carries."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.answers import TIE, Answer
from reports.figures.conditions import styles_of
from reports.figures.curves import middle
from reports.interactive.thinning import extremes, record_lows
from reports.study import Study
from reports.style.drawing import plain
from reports.style.palette import DASHES, SeriesStyle

MOST_SHOWN = 300  # points of a curve in a chart
_AXES = ("seconds", "tokens", "bytes")


def page_data(study: Study, found: Sequence[Answer]) -> dict[str, Any]:
    """What the slider needs: methods with their styles, and for each network its runs.

    Methods are named by their place.
    found: the answers of the study.
    Numbers of a curve are float64, little-endian, base64. A run's curve is cut to what crossings depend on.
    """
    styles = styles_of(study)
    return {
        "tie": TIE,
        "methods": [_method(plain(label), styles[label]) for label in study.labels],
        "levels": {group: _range(study, group) for group in study.levels if _evaluated(study, group)},
        "places": [_place(study, answer) for answer in found],
    }


def page_curves(study: Study, found: Sequence[Answer]) -> list[list[dict[str, Any]]]:
    """What the chart of losses draws: for each network of `page_data`, a curve per method."""
    place = {label: index for index, label in enumerate(study.labels)}
    drawn = []
    for answer in found:
        curves = _curves(study, answer)
        by_label = {label: curves[curves["label"] == label] for label in study.labels}
        drawn.append(
            [
                {"method": place[label], **_series(middle(curve, *_AXES))}
                for label, curve in by_label.items()
                if len(curve)
            ]
        )
    return drawn


def _curves(study: Study, answer: Answer) -> pd.DataFrame:
    curves = study.curves
    return curves[(curves["group"] == answer.group) & (curves["topology"] == answer.topology)]


def _evaluated(study: Study, group: str) -> bool:
    return bool(np.isfinite(study.curves.loc[study.curves["group"] == group, "loss"]).any())


def _method(label: str, style: SeriesStyle) -> dict[str, Any]:
    return {"label": label, "light": style.colour, "dark": style.dark, "dash": DASHES[style.line]}


def _range(study: Study, group: str) -> dict[str, Any]:
    """The loss that times are measured to, and the losses between which it may be chosen."""
    curves = study.curves[(study.curves["group"] == group) & np.isfinite(study.curves["loss"])]
    level = study.levels[group]
    first = curves.sort_values("step").groupby("run")["loss"].first().max()
    return {"loss": level.loss, "words": level.words, "low": float(curves["loss"].min()), "high": float(first)}


def _place(study: Study, answer: Answer) -> dict[str, Any]:
    group, topology = answer.group, answer.topology
    place = {label: index for index, label in enumerate(study.labels)}
    runs = []
    rows = study.at(group, topology)
    by_run = {int(str(run)): curve.sort_values("step") for run, curve in _curves(study, answer).groupby("run")}
    for row in rows.to_dict("records"):
        curve = by_run.get(int(row["run"]))
        runs.append({"method": place[row["label"]], "seed": int(row["seed"]), **_crossings(curve)})
    return {
        "group": group,
        "name": answer.place,
        "baseline": place[answer.baseline],
        "overrun": bool(answer.overrun),
        "final": {str(place[label]): _median(rows, label, "final_loss") for label in study.labels},
        "waits": {str(place[label]): _waits(rows, label) for label in study.labels},
        "lowest": None
        if answer.lowest is None
        else [answer.lowest.loss, place[answer.lowest.fastest], answer.lowest.ratio],
        "runs": runs,
    }


def _median(rows: pd.DataFrame, label: str, column: str) -> float | None:
    value = float(rows.loc[rows["label"] == label, column].median())
    return value if isfinite(value) else None


def _waits(rows: pd.DataFrame, label: str) -> Sequence[float | None]:
    return [_median(rows, label, "communication_seconds"), _median(rows, label, "training_seconds")]


def _series(curve: pd.DataFrame) -> dict[str, Any]:
    """What a chart draws of one method."""
    shown = curve.iloc[extremes(curve["loss"].to_numpy(float), MOST_SHOWN)]
    columns = [*_AXES, "loss"] + (["low", "high"] if shown["runs"].max() > 1 else [])
    return {name: _packed(shown[name].to_numpy(float)) for name in columns}


def _crossings(curve: pd.DataFrame | None) -> dict[str, str]:
    losses = np.array([]) if curve is None else curve["loss"].to_numpy(float)
    clock = np.array([]) if curve is None else curve["seconds"].to_numpy(float)
    kept = record_lows(losses)
    return {"clock": _packed(clock[kept]), "loss": _packed(losses[kept])}


def _packed(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode()
