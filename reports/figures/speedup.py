"""Speed-up over the baseline at every target loss: who is ahead depends on how far one trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.figures.conditions import MOST_PANELS, conditions, repeats, styles_of
from reports.study import Study
from reports.style.drawing import Drawing, legend, panels, plain
from reports.style.palette import GREY, SeriesStyle

_LEVELS = 60  # target losses of a curve


def speedup_against_loss(study: Study) -> Drawing | None:
    """One panel per network: baseline's time to a loss over the method's, both interpolated between evaluations."""
    parts = {place: part for place in study.places if len(part := speedups(study, *place))}
    shown = list(parts)[:MOST_PANELS]
    if not shown:
        return None
    data = pd.concat([parts[place] for place in shown], ignore_index=True)
    styles, labels = styles_of(study), [label for label in study.labels if label in set(data["label"])]
    figure, axes = panels(len(shown), height=2.5, share=False)
    if len(shown) == 1:
        figure.set_figwidth(5.0)
    for place, panel in zip(shown, axes, strict=True):
        _panel(panel, parts[place], styles, labels)
        level = study.levels.get(place[0])
        if level is not None:
            panel.axvline(level.loss, color=GREY, linewidth=0.7, linestyle=(0, (2, 2)))
        if len(shown) > 1:
            panel.set_title(plain(study.place_name(*place)))
    columns = min(3, len(shown))
    gap = "\n" if columns == 3 else " "
    for lowest in axes[-columns:]:  # of each column; beside two others there is room for half of the words
        lowest.set_xlabel(f"target loss (nats/token),{gap}harder to the right")
    baselines = ", ".join(sorted(set(study.collection.baselines.values())))
    for left in axes[::columns]:
        left.set_ylabel(f"speed-up over {plain(baselines)}")
    legend(figure, styles, labels)
    caption = f"Training time of {baselines} to a held-out loss over that of the method, interpolated between "
    caption += "evaluations, median over seeds. A curve ends, with a mark, at the lowest loss that both reach in all "
    caption += "runs. Thin: one of the two is below that loss at its first evaluation, so its time is an upper bound. "
    caption += "Dotted: the loss of the comparison above. "
    return Drawing(
        "speedup-loss", "Speed-up against target loss", f"{caption}{repeats(study)} {conditions(study)}", figure, data
    )


def speedups(study: Study, group: str, topology: str) -> pd.DataFrame:
    """label, loss, speedup and whether one side is an upper bound (`bounded`), from high to low losses."""
    baseline = study.collection.baselines[group]
    curves = study.curves[(study.curves["group"] == group) & (study.curves["topology"] == topology)]
    curves = curves[np.isfinite(curves["loss"])]
    rows: list[dict[str, Any]] = []
    lowest = curves.groupby(["label", "run"])["loss"].min()
    highest = curves.sort_values("step").groupby(["label", "run"])["loss"].first()
    for label in study.labels:
        if label == baseline or not {label, baseline} <= set(curves["label"]):
            continue
        pairs = _pairs(study, group, topology, baseline, label)
        # Both reach these losses in every run; above the first evaluations nothing is known.
        bottom = max(float(lowest[name].max()) for name in (baseline, label))
        top = max(float(highest[name].max()) for name in (baseline, label))
        for loss in np.linspace(top, bottom, _LEVELS) if pairs and top > bottom else ():
            found = [(study.crossing_at(a, loss), study.crossing_at(b, loss)) for a, b in pairs]
            both = [(a, b) for a, b in found if a is not None and b is not None and b.seconds > 0]
            if len(both) == len(pairs):
                ratio = float(np.exp(np.median([np.log(a.seconds / b.seconds) for a, b in both])))
                bounded = any(a.at_first or b.at_first for a, b in both)
                rows.append({"group": group, "topology": topology, "label": label, "loss": float(loss)})
                rows[-1] |= {"speedup": ratio, "bounded": bounded}
    return pd.DataFrame(rows)


def _pairs(study: Study, group: str, topology: str, baseline: str, label: str) -> list[tuple[int, int]]:
    """Runs of the two methods with the same seed."""
    sides = [study.at(group, topology, name)[["seed", "run"]] for name in (baseline, label)]
    merged = sides[0].merge(sides[1], on="seed")
    return [(int(a), int(b)) for a, b in zip(merged["run_x"], merged["run_y"], strict=True)]


def _panel(panel: Axes, data: pd.DataFrame, styles: dict[str, SeriesStyle], labels: list[str]) -> None:
    panel.axhline(1.0, color=GREY, linewidth=0.7)
    for label in labels:
        mine = data[data["label"] == label]
        if not len(mine):
            continue
        look = styles[label]
        panel.plot(mine["loss"], mine["speedup"], color=look.colour, linewidth=0.5, linestyle=look.line, gid=look.gid)
        sure = mine[~mine["bounded"]]
        panel.plot(sure["loss"], sure["speedup"], color=look.colour, linestyle=look.line, gid=look.gid)
        end = mine.iloc[-1]
        panel.plot(end["loss"], end["speedup"], color=look.colour, marker=look.marker, markersize=5, gid=look.gid)
    panel.invert_xaxis()
    panel.set_ylim(bottom=0)
