"""What captions say about where the numbers come from, taken from the records themselves."""

from __future__ import annotations

from dataclasses import replace

from harness.spec.compute import ComputeSpec
from netsim.units import show_duration, show_rate
from reports.records import Stored
from reports.study import Study
from reports.style.drawing import plain, series_id
from reports.style.palette import SeriesStyle, series_styles

MOST_PANELS = 12  # more small panels than this are not readable on one page


def styles_of(study: Study) -> dict[str, SeriesStyle]:
    """By label; a page knows a method by its place in the study's labels."""
    algorithm_of = dict(zip(study.everything["label"], study.everything["algorithm"], strict=True))
    styles = series_styles(study.labels, algorithm_of)
    return {label: replace(styles[label], gid=series_id(place)) for place, label in enumerate(study.labels)}


def repeats(study: Study) -> str:
    """'n = 3 seeds for each method and network, 24 valid runs.'"""
    counts = study.runs.groupby(["group", "topology", "label"])["seed"].nunique()
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"n = {number} seed{'s' if high != 1 else ''} for each method and network, {len(study.runs)} valid runs."


def conditions(study: Study) -> str:
    """Sites, model, compute, substrate and engine of the valid runs; what differs is listed."""
    runs = study.runs
    sites = _listed(sorted({int(n) for n in runs["sites"]}))
    models = _listed(sorted(set(runs["model"])))
    compute = sorted({_compute(run.spec.compute) for run in study.stored if run.result.valid})
    where = sorted({f"{row['substrate']}/{row['engine']}" for row in runs.to_dict("records")})
    found = f"{sites} sites, model {models}, {_listed(compute)} compute, emulated on {_listed(where)}."
    standing = any(run.spec.stands_for for run in study.stored if run.result.valid)
    return f"{found} Emulated at scale: networks are those of what the runs stand for." if standing else found


def networks(study: Study) -> str:
    """'transatlantic: 100 Mbit/s, RTT up to 100 ms' for the first few networks, as they were asked for."""
    rows = study.runs.drop_duplicates("topology").dropna(subset=["rate", "rtt"]).to_dict("records")
    words = [f"{r['topology']}: {show_rate(r['rate'])}, RTT up to {show_duration(r['rtt'])}" for r in rows[:3]]
    return "; ".join([*words, f"and {len(rows) - 3} further networks"] if len(rows) > 3 else words)


def _compute(compute: ComputeSpec) -> str:
    if compute.step_seconds is not None:
        others = [
            f"{name} {show_duration(site.step_seconds)}" for name, site in compute.sites.items() if site.step_seconds
        ]
        return f"paced ({', '.join([f'{show_duration(compute.step_seconds)} per step', *others])})"
    return compute.mode


def _listed(items: list[object] | list[int] | list[str]) -> str:
    return ", ".join(str(item) for item in items)


def workers(run: Stored) -> list[str]:
    """A name for each rank: its site's."""
    return [plain(site.name) for site in run.topology.sites]
