"""Figures of one method's own questions, drawn where a suite varies what they ask about."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.conditions import conditions, repeats, styles_of
from reports.study import Study
from reports.style.drawing import DOUBLE, REFERENCE, Drawing, legend, linear_axis, panels, plain
from reports.style.palette import SeriesStyle, series_styles
from reports.style.point_labels import label_marks
from reports.style.quantities import scale_for

_METRICS = {
    "routing_entropy": "routing entropy",
    "ghost_share": "ghost share",
    "subspace_overlap": "overlap of consecutive bases",
}


def metrics_over_steps(study: Study) -> Drawing | None:
    """What methods log about themselves: mean over layers and workers."""
    parts = []
    names = study.runs[["run", "group", "label", "seed"]]
    for family in _METRICS:
        merged = names.merge(study.logged(family), on="run").assign(metric=family)
        parts.append(merged.groupby(["metric", "group", "label", "step"], as_index=False)[["value"]].median())
    data = pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else None
    if data is None:
        return None
    families = [family for family in _METRICS if family in set(data["metric"])]
    labels = [label for label in study.labels if label in set(data["label"])]
    styles = styles_of(study)
    figure, axes = panels(len(families), share=False)
    for family, panel in zip(families, axes, strict=True):
        for label in labels:
            mine = data[(data["metric"] == family) & (data["label"] == label)]
            for _, curve in mine.groupby("group"):
                panel.plot(curve["step"], curve["value"], markevery=max(1, len(curve) // 8), **styles[label].keywords)
        panel.set_ylim(-0.03, 1.03)
        panel.set_xlabel("local step")
        panel.set_title(_METRICS[family])
    legend(figure, styles, labels)
    caption = "What the methods log at each synchronisation: mean over layers and workers, median over runs. "
    caption += "Routing entropy: 1 is even, 0 a single expert; ghost share: of routing choices, those on "
    caption += "experts that a site lacks. "
    return Drawing(
        "method-metrics", "Inside the methods", caption + f"{repeats(study)} {conditions(study)}", figure, data
    )


def replication_frontier(study: Study) -> Drawing | None:
    """FoMoE: loss against bytes and memory as the replication O_e varies."""
    data = _varied(study, "fomoe", "replication", extra=("outer", "routing", "placement", "sync_every"))
    if data["replication"].nunique() < 2:
        return None
    series = sorted(data["series"].unique())
    styles = _series_looks(series)
    figure, axes = panels(2, height=2.3)
    for (column, name), panel in zip(
        (("payload_bytes_per_worker", "payload per worker"), ("memory_bytes", "persistent memory of a worker")),
        axes,
        strict=True,
    ):
        scale = scale_for("B", data[column])
        for one in series:
            mine = data[data["series"] == one].sort_values("replication")
            panel.plot(mine[column], mine["final_loss"], **styles[one].keywords)
        linear_axis(panel, "x", scale)
        panel.set_xlabel(f"{name} ({scale.unit})")
        references = _baseline_lines(panel, study, "fomoe")
        curves = [data[data["series"] == one].sort_values("replication") for one in series]
        places = [zip(curve[column], curve["final_loss"], curve["replication"], strict=True) for curve in curves]
        label_marks(panel, [[(x, y, f"{copies:.0f}") for x, y, copies in curve] for curve in places])
    axes[0].set_ylabel("final held-out loss (nats/token)")
    legend(figure, styles, series, references=references)
    caption = (
        "Final loss against what it costs, as the number of workers that hold each expert (beside the marks) varies. "
    )
    caption += f"Medians over runs. {repeats(study)} {conditions(study)}"
    return Drawing("fomoe-frontier", "FoMoE: replication frontier", caption, figure, data)


def _baseline_lines(panel: Axes, study: Study, algorithm: str) -> list[str]:
    """The final loss of the baseline that `algorithm` is compared with, where it is another method; its labels."""
    drawn = []
    for group in dict.fromkeys(study.runs.loc[study.runs["algorithm"] == algorithm, "group"]):
        label = study.collection.baselines[str(group)]
        runs = study.at(str(group), label=label)
        if len(runs) and algorithm not in set(runs["algorithm"]):
            loss = float(runs["final_loss"].median())
            panel.axhline(loss, **REFERENCE)
            drawn.append(label)
    return list(dict.fromkeys(drawn))


def lordo_rank(study: Study) -> Drawing | None:
    """LoRDO: final loss against rank."""
    return _loss_against(study, "rank", "rank r of the projection", "LoRDO: loss against rank", log=True)


def lordo_omega(study: Study) -> Drawing | None:
    """LoRDO: final loss against omega; 1 never leaves its first subspace."""
    title = "LoRDO: loss against the quasi-hyperbolic weight"
    return _loss_against(study, "omega", "omega (weight of the low-rank momentum)", title, log=False)


def _loss_against(study: Study, option: str, axis: str, title: str, log: bool) -> Drawing | None:
    others = tuple(name for name in ("variant", "error_feedback", "rank", "omega", "sync_every") if name != option)
    data = _varied(study, "lordo", option, extra=others)
    varied = data.groupby("series")[option].nunique()
    data = data[data["series"].isin(varied.index[varied > 1])]
    if not len(data):
        return None
    series = sorted(data["series"].unique())
    styles = _series_looks(series)
    figure, (panel,) = panels(1, height=2.4)
    for one in series:
        mine = data[data["series"] == one].sort_values(option)
        panel.plot(mine[option], mine["final_loss"], **styles[one].keywords)
        panel.vlines(mine[option], mine["low"], mine["high"], **styles[one].range_keywords)
    if log:
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted(data[option].unique()), [f"{value:.0f}" for value in sorted(data[option].unique())])
        panel.minorticks_off()
    references = _baseline_lines(panel, study, "lordo")
    panel.set_xlabel(axis)
    panel.set_ylabel("final held-out loss (nats/token)")
    legend(figure, styles, series, references=references)
    caption = f"Median of runs, bars from the best to the worst. {repeats(study)} {conditions(study)}"
    return Drawing(f"lordo-{option}", title, caption, figure, data)


def aggregation_against_clients(study: Study) -> Drawing | None:
    """Photon: exposed communication by way of aggregation, against the number of clients."""
    data = _varied(study, "photon", "aggregation", extra=(), keys=("sites",))
    if not len(data) or data["sites"].nunique() < 2:
        return None
    series = sorted(data["series"].unique())
    styles = _series_looks(series)
    figure = Figure(figsize=(DOUBLE / 2, 2.7))
    panel = figure.subplots()
    scale = scale_for("s", data["communication_seconds"])
    for one in series:
        mine = data[data["series"] == one].sort_values("sites")
        panel.plot(mine["sites"], mine["communication_seconds"], **styles[one].keywords)
    panel.set_xticks(sorted(data["sites"].unique()))
    linear_axis(panel, "y", scale)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("clients")
    panel.set_ylabel(f"exposed communication of a run ({scale.unit})")
    legend(figure, styles, series)
    caption = f"Communication that steps waited for. Medians over runs. {repeats(study)} {conditions(study)}"
    return Drawing("photon-aggregation", "Photon: aggregation against clients", caption, figure, data)


def _varied(study: Study, algorithm: str, option: str, extra: Sequence[str], keys: Sequence[str] = ()) -> pd.DataFrame:
    """Medians of runs of `algorithm` that set `option`, by series: the other options that the suite varies."""
    rows = []
    for row in study.runs[study.runs["algorithm"] == algorithm].to_dict("records"):
        options = study.stored[int(row["run"])].spec.options
        if options.get(option) is None:
            continue
        rest = {name: options[name] for name in extra if name in options}
        rows.append({**row, option: options[option], "rest": rest})
    varying = [name for name in extra if len({str(row["rest"].get(name)) for row in rows}) > 1]
    for row in rows:
        parts = [f"{name.replace('_', ' ')} {row['rest'][name]}" for name in varying if name in row["rest"]]
        row["series"] = plain(", ".join([*([row["group"]] if len(study.groups) > 1 else []), *parts]) or algorithm)
        if "sites" in keys:
            row["series"] = str(row[option])
    columns = ["series", option, *keys]
    wanted = ["final_loss", "payload_bytes_per_worker", "memory_bytes", "communication_seconds"]
    frame = pd.DataFrame(rows, columns=None if rows else [*columns, *wanted])
    return frame.groupby(columns, as_index=False).agg(
        **{name: (name, "median") for name in wanted}, low=("final_loss", "min"), high=("final_loss", "max")
    )


def _series_looks(series: Sequence[str]) -> dict[str, SeriesStyle]:
    return series_styles(series, {})
