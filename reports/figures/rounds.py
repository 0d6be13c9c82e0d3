"""One round as it went, site by site: a Gantt of the time buckets."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.records.run_record import BUCKETS
from reports.figures.conditions import conditions, workers
from reports.study import Study
from reports.style.drawing import DOUBLE, Drawing, plain
from reports.style.palette import Fill, fills_of

_MOST_STEPS = 24  # of each worker; more become a blur
_MOST_LABELS = 8
MODEL = -1  # the rank under which the cost model's expectation stands


def round_timeline(study: Study) -> Drawing | None:
    """The end of one run of each method on the slowest network, up to its last synchronisation, on one time axis."""
    for group in study.groups:
        for topology in reversed(study.topologies(group)):
            parts = [
                part
                for label in study.labels
                if (part := _intervals(study, group, topology, label)) is not None and len(part)
            ]
            if parts:
                return _draw(study, group, topology, parts[:_MOST_LABELS])
    return None


def _intervals(study: Study, group: str, topology: str, label: str) -> pd.DataFrame | None:
    """One row for each bucket of each step: start and end in seconds from the first start."""
    runs = study.at(group, topology, label)
    if not len(runs):
        return None
    run = int(runs.sort_values("seed")["run"].iloc[0])
    steps = study.steps[study.steps["run"] == run].sort_values(["rank", "step"])
    sent = steps.groupby("step")["payload_bytes"].sum().diff()
    synchronised = sent.index[sent > 0]
    if not len(synchronised):
        return None
    last = int(synchronised[-1])
    before = [int(step) for step in synchronised if step < last]
    first = max(last - _MOST_STEPS, min(before[-1], last - 3) if before else 0)
    window = steps[(steps["step"] > first) & (steps["step"] <= last)]
    rows = []
    for row in window.to_dict("records"):
        spent = [(name, float(row[f"{name}_seconds"])) for name in BUCKETS]
        at = float(row["clock"]) - sum(seconds for _, seconds in spent)
        for name, seconds in spent:
            if seconds > 0:
                rows.append({"label": label, "rank": row["rank"], "step": row["step"], "bucket": name})
                rows[-1] |= {"start": at, "end": at + seconds}
            at += seconds
    rows += _expected(study, run, label, [int(step) for step in synchronised], first, last)
    frame = pd.DataFrame(rows)
    if not len(frame):
        return None
    begin = frame.groupby(frame["rank"] == MODEL)["start"].transform("min")
    return frame.assign(run=run, start=frame["start"] - begin, end=frame["end"] - begin)


def _expected(
    study: Study, run: int, label: str, synchronised: list[int], first: int, last: int
) -> list[dict[str, object]]:
    """The same steps as the cost model expects them: paced slots, and synchronisations of mean length."""
    slot = study.stored[run].spec.compute.step_seconds
    if study.predictions is None or slot is None:
        return []
    predicted = study.predictions.frame
    found = predicted.loc[predicted["run"] == run, "predicted_communication_seconds"]
    rows: list[dict[str, object]] = []
    at = 0.0
    for step in range(first + 1, last + 1) if len(found) else ():
        spent = [("compute", float(slot))]
        if step in synchronised:
            spent.append(("communication", float(found.iloc[0]) / len(synchronised)))
        for name, seconds in spent:
            rows.append({"label": label, "rank": MODEL, "step": step, "bucket": name, "start": at, "end": at + seconds})
            at += seconds
    return rows


def _draw(study: Study, group: str, topology: str, parts: list[pd.DataFrame]) -> Drawing:
    run = study.stored[int(parts[0]["run"].iloc[0])]
    names = workers(run)
    names += ["model"] if any((part["rank"] == MODEL).any() for part in parts) else []
    figure = Figure(figsize=(DOUBLE, 0.65 + len(parts) * (0.13 * len(names) + 0.3)))
    axes = figure.subplots(len(parts), 1, sharex=True, squeeze=False).ravel().tolist()
    data = pd.concat(parts, ignore_index=True)
    fills = fills_of(BUCKETS)
    for part, panel in zip(parts, axes, strict=True):
        _panel(panel, part, names, fills)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(0, data["end"].max() * 1.01)
    shown = [name for name in BUCKETS if name in set(data["bucket"])]
    figure.legend(
        handles=[Patch(label=name, **fills[name].keywords) for name in shown],
        loc="outside upper left",
        ncols=len(shown),
    )
    caption = (
        f"The end of one run of each method on {study.place_name(group, topology)}, up to its last synchronisation: "
    )
    caption += (
        f"one round, at least 3 and at most {_MOST_STEPS} steps. Each row is a site; within a step the buckets are "
    )
    caption += "drawn in the order in which most of them happen. "
    if names[-1] == "model":
        caption += "Pale: the cost model's expectation, with a mean synchronisation. "
    caption += conditions(study)
    return Drawing("round", "One round, site by site", caption, figure, data.drop(columns="run"))


def _panel(panel: Axes, part: pd.DataFrame, names: list[str], fills: dict[str, Fill]) -> None:
    for row, name in enumerate(names):
        model = name == "model" and row == len(names) - 1
        mine = part[part["rank"] == (MODEL if model else row)]
        for bucket, intervals in mine.groupby("bucket"):
            spans = [(found["start"], found["end"] - found["start"]) for found in intervals.to_dict("records")]
            look = {**fills[str(bucket)].keywords, "linewidth": 0.2, "alpha": 0.5 if model else 1.0}
            panel.broken_barh(spans, (row - 0.42, 0.84), **look)
    panel.set_yticks(range(len(names)), names, fontsize=6)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(visible=False, axis="y")
    panel.set_title(plain(str(part["label"].iloc[0])), fontsize=7, pad=2)
