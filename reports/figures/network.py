"""What the network does to a method: utilisation, speed-up and the best choice, against rate and round-trip time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from netsim.units import show_duration, show_rate
from reports.figures.conditions import conditions, repeats, styles_of
from reports.study import Study
from reports.style.drawing import SINGLE, Drawing, legend, log_axis, panels, plain
from reports.style.palette import GREY
from reports.style.quantities import axis_scale

_TIE = 1.02  # closer than this, neither is called faster


def _by_network(study: Study) -> pd.DataFrame:
    """Medians by group, label, rate and RTT of valid runs. The rate is that of the slowest pair, as asked for."""
    keys = ["group", "topology", "label", "rate", "rtt"]
    runs = study.runs.dropna(subset=["rate", "rtt"])
    if study.predictions is not None:
        runs = runs.merge(study.predictions.frame, on="run", how="left")
    else:
        runs = runs.assign(predicted_utilisation=np.nan)
    return runs.groupby(keys, as_index=False).agg(
        utilisation=("compute_utilisation", "median"),
        low=("compute_utilisation", "min"),
        high=("compute_utilisation", "max"),
        predicted=("predicted_utilisation", "median"),
        measured_goodput=("measured_goodput", "median"),
        runs=("run", "size"),
    )


def utilisation_against_rate(study: Study) -> Drawing | None:
    """One panel for each round-trip time; the cost model's expectation behind the measured points."""
    data = _by_network(study)
    rtts = [rtt for rtt in sorted(data["rtt"].unique()) if data.loc[data["rtt"] == rtt, "rate"].nunique() > 1]
    if not rtts:
        return None
    data = data[data["rtt"].isin(rtts)]
    styles, labels = styles_of(study), [label for label in study.labels if label in set(data["label"])]
    scale = axis_scale("bit/s", data["rate"])
    figure, axes = panels(len(rtts))
    for rtt, panel in zip(rtts, axes, strict=True):
        for label in labels:
            mine = data[(data["rtt"] == rtt) & (data["label"] == label)].sort_values("rate")
            look = styles[label]
            if mine["predicted"].notna().any():
                panel.plot(mine["rate"], mine["predicted"], color=look.colour, linewidth=3.5, alpha=0.25, gid=look.gid)
            panel.plot(mine["rate"], mine["utilisation"], **look.keywords)
            panel.vlines(mine["rate"], mine["low"], mine["high"], **look.range_keywords)
        log_axis(panel, "x", scale, list(data["rate"]))
        panel.set_title(f"RTT {show_duration(rtt)}")
        panel.set_xlabel(f"rate of the slowest pair ({scale.unit})")
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for left in axes[:: min(3, len(axes))]:
        left.set_ylabel("compute utilisation")
    legend(figure, styles, labels)
    curve = f" Broad pale lines: predicted from {study.predictions.basis}." if study.predictions else ""
    caption = f"Compute time as a share of wall time. Median of runs, bars from the lowest to the highest.{curve} "
    caption += f"{repeats(study)} {conditions(study)}"
    return Drawing("utilisation-rate", "Compute utilisation against rate", caption, figure, data)


def _speedups(study: Study) -> pd.DataFrame:
    """Ratio of the baseline's time to the group's loss to that of each other label, at each network."""
    rows = []
    for group, topology in study.places:
        network = study.at(group, topology).dropna(subset=["rate", "rtt"])
        baseline = study.collection.baselines[group]
        for label in study.labels:
            found = study.against_baseline(group, topology, label, "seconds_to_level")
            if label == baseline or found is None or not len(network):
                continue
            row: dict[str, Any] = {"group": group, "topology": topology, "label": label, "baseline": baseline}
            row |= {"rate": float(network["rate"].iloc[0]), "rtt": float(network["rtt"].iloc[0])}
            rows.append(row | {"speedup": found.ratio, "low": found.low, "high": found.high, "pairs": found.n})
    columns = ["group", "topology", "label", "baseline", "rate", "rtt", "speedup", "low", "high", "pairs"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def speedup_against_rate(study: Study) -> Drawing | None:
    return _speedup(study, "rate", "rtt", "bit/s", "rate of the slowest pair", lambda rtt: f"RTT {show_duration(rtt)}")


def speedup_against_rtt(study: Study) -> Drawing | None:
    return _speedup(study, "rtt", "rate", "s", "largest round-trip time", show_rate)


def _speedup(study: Study, x: str, panel_by: str, unit: str, axis: str, name: Callable[[float], str]) -> Drawing | None:
    data = _speedups(study)
    data = data[data.groupby(["group", "label", panel_by])[x].transform("nunique") > 1]
    values = sorted(data[panel_by].unique())
    if not values:
        return None
    styles, labels = styles_of(study), [label for label in study.labels if label in set(data["label"])]
    scale = axis_scale(unit, data[x])
    figure, axes = panels(len(values))
    for value, panel in zip(values, axes, strict=True):
        for label in labels:
            mine = data[(data[panel_by] == value) & (data["label"] == label)].sort_values(x)
            panel.plot(mine[x], mine["speedup"], **styles[label].keywords)
            panel.vlines(mine[x], mine["low"], mine["high"], **styles[label].range_keywords)
        panel.axhline(1.0, color=GREY, linewidth=0.7)
        log_axis(panel, "x", scale, list(data[x]))
        panel.set_title(name(value))
        panel.set_xlabel(f"{axis} ({scale.unit})")
    for panel in axes:
        log_axis(panel, "y", axis_scale("", [1.0]))
    baselines = sorted(set(data["baseline"]))
    against = ", ".join(baselines)
    for left in axes[:: min(3, len(axes))]:
        left.set_ylabel(f"speed-up over {plain(against) if len(baselines) == 1 else 'the baseline'}")
    legend(figure, styles, labels)
    caption = f"Training time of {against} over that of each method, to the same held-out loss; above 1 the method is "
    caption += "faster. Median of the pairs with the same seed, bars: 95 % bootstrap interval (from three pairs on). "
    caption += (
        f"Networks where one of the two did not reach the loss are left out. {repeats(study)} {conditions(study)}"
    )
    return Drawing(
        f"speedup-{x}", f"Speed-up against {'rate' if x == 'rate' else 'round-trip time'}", caption, figure, data
    )


def fastest_map(study: Study) -> Drawing | None:
    """Which method reaches the loss first, over rate and round-trip time."""
    runs = study.runs.dropna(subset=["rate", "rtt"])
    times = runs.groupby(["label", "rate", "rtt"], as_index=False).agg(
        seconds=("seconds_to_level", lambda column: column.median(skipna=False))
    )
    times = times.dropna(subset=["seconds"])
    grid = times["rate"].nunique() * times["rtt"].nunique()
    if grid < 4 or len(times[["rate", "rtt"]].drop_duplicates()) <= grid / 2:
        return None
    data = times.loc[times.groupby(["rate", "rtt"])["seconds"].idxmin()].reset_index(drop=True)
    others = times.drop(times.groupby(["rate", "rtt"])["seconds"].idxmin())
    second = others.loc[others.groupby(["rate", "rtt"])["seconds"].idxmin()]
    data = data.merge(second, on=["rate", "rtt"], how="left", suffixes=("", "_of_the_next"))
    data = data.assign(times_faster_than_the_next=data["seconds_of_the_next"] / data["seconds"])
    rates, rtts = sorted(times["rate"].unique()), sorted(times["rtt"].unique())
    styles = styles_of(study)
    figure = Figure(figsize=(max(SINGLE, 0.75 * len(rates) + 1.0), 0.45 * len(rtts) + 0.9))
    axes = figure.subplots()
    for row in data.to_dict("records"):
        x, y = rates.index(row["rate"]), rtts.index(row["rtt"])
        tie = row["times_faster_than_the_next"] < _TIE
        colour = to_rgba(GREY if tie else styles[row["label"]].colour, 0.22)
        axes.fill_between([x - 0.48, x + 0.48], y - 0.47, y + 0.47, color=colour, linewidth=0)
        text = plain(row["label"])
        if tie:
            text += f"\n≈ {plain(row['label_of_the_next'])}"
        elif np.isfinite(row["times_faster_than_the_next"]):
            text += f"\n×{row['times_faster_than_the_next']:.2f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(rates)), [show_rate(rate) for rate in rates])
    axes.set_yticks(range(len(rtts)), [show_duration(rtt) for rtt in rtts])
    axes.set_xlim(-0.55, len(rates) - 0.45)
    axes.set_ylim(-0.55, len(rtts) - 0.45)
    axes.grid(visible=False)
    axes.set_xlabel("rate of the slowest pair")
    axes.set_ylabel("round-trip time")
    caption = "The method that reaches the loss first, and how many times sooner than the next one; "
    caption += f"grey: less than {_TIE - 1:.0%} apart. "
    caption += f"Medians over runs. {repeats(study)} {conditions(study)}"
    return Drawing("fastest-map", "The fastest method by network", caption, figure, data)
