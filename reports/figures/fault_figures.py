"""What happened to a run and when, site by site: faults, changes of the network, who trained and who waited."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.records.run_record import RecordedEvent
from reports.figures.conditions import conditions, workers
from reports.records import Stored
from reports.study import Study
from reports.style.drawing import DOUBLE, Drawing, plain
from reports.style.palette import INK, NAMED_FILLS

_MOST_LABELS = 6
_FILLS = {name: NAMED_FILLS[name].colour for name in ("training", "waiting for others")}
_MARKS = {  # of a site's own events
    "crash": ("crash", "X"),
    "pause": ("pause", "s"),
    "straggle": ("straggle", "v"),
    "corrupt": ("corrupt or short payload", "*"),
    "short": ("corrupt or short payload", "*"),
    "partition": ("partition", "P"),
    "detected": ("noticed by a peer", "|"),
    "reformed": ("member of a new group", "^"),
    "back": ("back", "o"),
    "restart": ("back", "o"),
    "left behind": ("left behind", "d"),
}
_NETWORK = {"links": "links change", "traffic": "cross-traffic", "resume": "resumed"}  # vertical lines


def what_happened(study: Study) -> Drawing | None:
    """One run of each method on the first network on which anything happened, on the training clock."""
    for group in study.groups:
        for topology in study.topologies(group):
            parts = []
            for label in study.labels:
                runs = study.at(group, topology, label).sort_values("seed")
                for run in runs["run"].astype(int)[:1]:
                    events = _events(study.stored[run])
                    if len(events):
                        parts.append(pd.concat([_spans(study, run), events], ignore_index=True).assign(label=label))
            if parts:
                return _draw(study, group, topology, parts[:_MOST_LABELS])
    return None


def _events(run: Stored) -> pd.DataFrame:
    """Columns what, kind, rank (-1: the network), start, end: seconds of the training clock."""
    happened = run.events()
    begin = next((one.at for one in happened if one.kind == "go"), 0.0)
    names = [site.name for site in run.topology.sites]
    rows = [
        {"what": "event", "kind": one.kind, "rank": _rank(one, names), "start": one.at - begin, "end": one.at - begin}
        for one in happened
        if one.kind in _MARKS or one.kind in _NETWORK
    ]
    return pd.DataFrame(rows)


def _rank(event: RecordedEvent, sites: list[str]) -> int:
    if event.rank is not None:
        return event.rank
    return sites.index(event.site) if event.site in sites else -1


def _spans(study: Study, run: int) -> pd.DataFrame:
    """Training and waiting of each worker; neighbours that touch become one."""
    steps = study.steps[study.steps["run"] == run]
    rows: list[dict[str, Any]] = []
    for rank, mine in steps.groupby("rank"):
        latest: dict[str, dict[str, Any]] = {}
        for step in mine.to_dict("records"):
            waited = float(step["communication_seconds"])
            busy = sum(float(step[f"{name}_seconds"]) for name in ("data", "compute", "pacing"))
            aside = float(step["evaluation_seconds"]) + float(step["checkpoint_seconds"])
            end = float(step["clock"]) - aside
            for what, start, stop in (
                ("training", end - waited - busy, end - waited),
                ("waiting for others", end - waited, end),
            ):
                if what in latest and start - latest[what]["end"] < 0.02:
                    latest[what]["end"] = stop
                elif stop - start > 1e-3:
                    latest[what] = {"what": what, "kind": "", "rank": rank, "start": start, "end": stop}
                    rows.append(latest[what])
    return pd.DataFrame(rows)


def _draw(study: Study, group: str, topology: str, parts: list[pd.DataFrame]) -> Drawing:
    data = pd.concat(parts, ignore_index=True)
    some = study.stored[int(study.at(group, topology)["run"].iloc[0])]
    names = workers(some)
    figure = Figure(figsize=(DOUBLE, 0.9 + len(parts) * (0.17 * len(names) + 0.35)))
    axes = figure.subplots(len(parts), 1, sharex=True, squeeze=False).ravel().tolist()
    for part, panel in zip(parts, axes, strict=True):
        _panel(panel, part, names)
    axes[-1].set_xlabel("training clock (s)")
    axes[-1].set_xlim(0, max(float(data["end"].max()), 1e-3) * 1.02)
    figure.legend(handles=_legend(set(data["kind"])), loc="outside upper left", ncols=4)
    caption = f"Faults of one run of each method on {study.place_name(group, topology)}, and who trained, who waited "
    caption += "and who was absent or made steps that were given up (white) meanwhile. Each row is a site; dotted "
    caption += "lines are changes of the network. "
    return Drawing("fault-timeline", "What happened when", caption + conditions(study), figure, data)


def _panel(panel: Axes, part: pd.DataFrame, names: list[str]) -> None:
    for row in range(len(names)):
        mine = part[part["rank"] == row]
        for what, colour in _FILLS.items():
            spans = [(one["start"], one["end"] - one["start"]) for one in mine[mine["what"] == what].to_dict("records")]
            panel.broken_barh(spans, (row - 0.36, 0.72), facecolors=colour, linewidth=0)
        for event in mine[mine["what"] == "event"].to_dict("records"):
            if event["kind"] in _MARKS:
                panel.plot(event["start"], row, marker=_MARKS[event["kind"]][1], color=INK, markersize=5, clip_on=False)
    for event in part[(part["what"] == "event") & ((part["rank"] < 0) | part["kind"].isin(list(_NETWORK)))].to_dict(
        "records"
    ):
        panel.axvline(event["start"], color=INK, linestyle=":", linewidth=0.8)
    panel.set_yticks(range(len(names)), names, fontsize=6)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(visible=False, axis="y")
    panel.set_title(plain(str(part["label"].iloc[0])), fontsize=7, pad=2)


def _legend(kinds: set[str]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [Patch(facecolor=colour, label=what) for what, colour in _FILLS.items()]
    shown = dict.fromkeys(mark for kind, mark in _MARKS.items() if kind in kinds)
    handles += [Line2D([], [], color=INK, marker=marker, linestyle="", label=name) for name, marker in shown]
    network = ", ".join(name for kind, name in _NETWORK.items() if kind in kinds)
    return [*handles, Line2D([], [], color=INK, linestyle=":", label=network)] if network else handles
