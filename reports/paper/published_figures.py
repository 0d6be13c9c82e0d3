"""The papers' central comparisons, published on the left and measured on the right, on the same axes.

The published models are a hundred to ten thousand times larger: what can agree is the shape, not the values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import exp
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.figures.conditions import conditions, repeats, styles_of
from reports.paper.published_values import PublishedSource, published_values
from reports.study import Study
from reports.style.drawing import DOUBLE, Drawing, legend, panels, plain
from reports.style.palette import GREY, NAMED_FILLS, series_styles

PUBLISHED, MEASURED = "published", "measured"


def published_beside_measured(study: Study) -> list[Drawing]:
    """Those figures for which the records have runs."""
    drawn = [draw(study) for draw in (photon_time, fomoe_replication, lordo_parity)]
    return [drawing for drawing in drawn if drawing is not None]


def photon_time(study: Study) -> Drawing | None:
    """Wall time of DDP and Photon, split, as a share of DDP's."""
    published = published_values().photon
    ddp, photon = (_labels(study, name) for name in ("ddp", "photon"))
    place = next(
        (p for p in reversed(study.places) if all(len(study.at(*p, label)) for label in (*ddp[:1], *photon[:1]))), None
    )
    if not ddp or not photon or place is None:
        return None
    whole = published.hours["ddp"].total
    rows = [
        {"source": PUBLISHED, "label": name, "part": part, "share": getattr(hours, part) / whole}
        for name, hours in published.hours.items()
        for part in ("compute", "communication")
    ]
    base = float(study.at(*place, ddp[0])["training_seconds"].median())
    for label in (ddp[0], *photon):
        for part in ("compute", "communication"):
            runs = study.at(*place, label)
            if len(runs):
                share = float(runs[f"{part}_seconds"].median()) / base
                rows.append({"source": MEASURED, "label": label, "part": part, "share": share})
    data = pd.DataFrame(rows)
    figure, (left, right) = _pair()
    for panel, source in ((left, PUBLISHED), (right, MEASURED)):
        _stack(panel, data[data["source"] == source])
    left.set_ylabel("time / time of DDP")
    handles = [_patch(panel_part) for panel_part in ("compute", "communication")]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    caption = (
        f"Published: {published.source} ({published.citation}). Measured: training time of the same number of steps on "
        f"{place[1]}, communication that steps waited for; perplexities are not equal there. "
    )
    return _drawing("published-photon", "Photon: where the time goes", caption, study, figure, data)


def fomoe_replication(study: Study) -> Drawing | None:
    """Perplexity over that of the full replica, against the share of workers that hold each expert."""
    published = published_values().fomoe
    rows: list[dict[str, Any]] = []
    for workers, values in published.perplexity.items():
        full = values[workers]
        rows += [
            {"source": PUBLISHED, "series": f"M = {workers}", "share": held / workers, "ratio": value / full}
            for held, value in sorted(values.items())
        ]
    measured = _replications(study)
    if not measured:
        return None
    data = pd.DataFrame([*rows, *measured])
    figure, axes = _pair()
    styles = series_styles(list(dict.fromkeys(data["series"])), {})
    for panel, source in zip(axes, (PUBLISHED, MEASURED), strict=True):
        for series, mine in data[data["source"] == source].groupby("series", sort=False):
            panel.plot(mine["share"], mine["ratio"], label=plain(str(series)), **styles[str(series)].keywords)
        panel.axhline(1.0, color=GREY, linewidth=0.7)
        panel.set_xscale("log", base=2)
        shares = sorted(set(data["share"]))
        panel.set_xticks(shares, [f"{share:g}" for share in shares])
        panel.minorticks_off()
        panel.set_xlabel("share of workers that hold each expert")
        panel.legend(loc="upper right")
    axes[0].set_ylabel("perplexity / full replica")
    caption = f"Published: {published.source} ({published.citation}). Measured: medians over runs with the same seeds. "
    return _drawing("published-fomoe", "FoMoE: the price of partial replication", caption, study, figure, data)


def _replications(study: Study) -> list[dict[str, Any]]:
    """Measured ratios, for each series of FoMoE's other options that has the full replica and less."""
    runs = study.runs[study.runs["algorithm"] == "fomoe"]
    found: dict[str, dict[float, list[float]]] = {}
    for run in runs.to_dict("records"):
        options = json.loads(run["options"])
        held = options.pop("replication", None)
        if held is not None and np.isfinite(run["final_loss"]):
            others = ", ".join(f"{key} {value}" for key, value in sorted(options.items()))
            series = f"M = {run['sites']}" + (f", {others}" if others else "")
            found.setdefault(series, {}).setdefault(float(held) / float(run["sites"]), []).append(run["final_loss"])
    rows = []
    for series, by_share in found.items():
        if 1.0 in by_share and len(by_share) > 1:
            full = float(np.median(by_share[1.0]))
            rows += [
                {"source": MEASURED, "series": series, "share": share, "ratio": exp(float(np.median(losses)) - full)}
                for share, losses in sorted(by_share.items())
            ]
    return rows


def lordo_parity(study: Study) -> Drawing | None:
    """Perplexity against bytes, both over those of low-rank DDP."""
    published = published_values().lordo
    rows: list[dict[str, Any]] = []
    for group, topology in study.places:
        base = [label for label in _labels(study, "lowrank_ddp") if len(study.at(group, topology, label))]
        for label in _labels(study, "lordo") if base else []:
            pairs = study.at(group, topology, base[0]).merge(study.at(group, topology, label), on="seed")
            if len(pairs):
                losses = (pairs["final_loss_y"] - pairs["final_loss_x"]).median()
                sent = (pairs["payload_bytes_per_worker_y"] / pairs["payload_bytes_per_worker_x"]).median()
                rows.append(
                    {"label": label, "topology": topology, "bytes_ratio": sent, "perplexity_ratio": exp(losses)}
                )
    if not rows:
        return None
    data = pd.DataFrame(rows).drop_duplicates("label").assign(source=MEASURED)
    limit: dict[str, Any] = {"label": "LoRDO", "source": PUBLISHED, "topology": ""}
    limit |= {"bytes_ratio": published.bytes_ratio, "perplexity_ratio": published.perplexity_ratio_at_most}
    figure, (left, right) = _pair()
    styles = styles_of(study)
    left.plot(published.bytes_ratio, published.perplexity_ratio_at_most, color=GREY, marker="v", linestyle="none")
    left.annotate(
        "at most",
        (published.bytes_ratio, published.perplexity_ratio_at_most),
        xytext=(5, 3),
        textcoords="offset points",
    )
    for row in data.to_dict("records"):
        look = styles[row["label"]].keywords | {"linestyle": "none"}
        right.plot(row["bytes_ratio"], row["perplexity_ratio"], **look)
    for panel in (left, right):
        panel.axhline(1.0, color=GREY, linewidth=0.7)
        panel.set_xscale("log")
        panel.set_xlim(min(0.03, 0.7 * float(data["bytes_ratio"].min())), 1.3)
        panel.set_xticks([0.03, 0.1, 0.3, 1.0], ["0.03", "0.1", "0.3", "1"])
        panel.minorticks_off()
        panel.set_xlabel("payload / low-rank DDP")
    left.set_ylabel("perplexity / low-rank DDP")
    legend(figure, styles, list(data["label"]), line=False)
    data = pd.concat([pd.DataFrame([limit]), data], ignore_index=True)
    caption = f"Published: {published.source} ({published.citation}). Measured: medians over seeds. "
    return _drawing("published-lordo", "LoRDO against low-rank DDP", caption, study, figure, data)


def sources() -> Sequence[PublishedSource]:
    values = published_values()
    return (values.photon, values.lordo, values.fomoe)


def _pair() -> tuple[Figure, list[Axes]]:
    figure, axes = panels(2, height=2.2, columns=2)
    figure.set_figwidth(DOUBLE)
    for panel, title in zip(axes, (PUBLISHED, MEASURED), strict=True):
        panel.set_title(title)
    return figure, axes


def _labels(study: Study, algorithm: str) -> list[str]:
    own = set(study.runs.loc[study.runs["algorithm"] == algorithm, "label"])
    return [label for label in study.labels if label in own]


def _stack(panel: Axes, data: pd.DataFrame) -> None:
    labels = list(dict.fromkeys(data["label"]))
    bottom = np.zeros(len(labels))
    for part in ("compute", "communication"):
        heights = data[data["part"] == part].set_index("label")["share"].reindex(labels).to_numpy()
        panel.bar(range(len(labels)), heights, 0.6, bottom=bottom, **NAMED_FILLS[part].keywords)
        bottom = bottom + heights
    panel.set_axisbelow(True)
    panel.set_xticks(range(len(labels)), [plain(label) for label in labels], rotation=20 if len(labels) > 3 else 0)


def _patch(part: str) -> Patch:
    return Patch(label=part, **NAMED_FILLS[part].keywords)


def _drawing(name: str, title: str, caption: str, study: Study, figure: Figure, data: pd.DataFrame) -> Drawing:
    return Drawing(name, title, f"{caption}{repeats(study)} {conditions(study)}", figure, data)
