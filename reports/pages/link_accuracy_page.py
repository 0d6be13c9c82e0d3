"""docs/accuracy.md: measured links against their declared RTT, rate, loss and jitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.bench.link_accuracy import GOODPUT_SHARE, RTT_MS, LinkAccuracy
from harness.bench.link_load import LoadedLink, ManySites
from netsim.units import parse_duration, parse_rate
from reports.pages.link_load_tables import load_sections
from reports.pages.markdown_page import MarkdownPage, hosts_line, picture
from reports.style.drawing import Drawing, legend, log_axis, panels, report_style
from reports.style.palette import series_styles
from reports.style.quantities import Scale
from reports.style.tables import Column, Table, text_table

_POINT_COLUMNS = (
    Column("where", "where", numeric=False),
    Column("rate", "rate", numeric=False),
    Column("rtt", "RTT", numeric=False),
    Column("loss", "loss", "%"),
    Column("jitter", "jitter measured / declared", "ms", numeric=False),
    Column("rtt_error", "RTT error", "ms"),
    Column("rtt_p95", "p95 excess RTT", "ms"),
    Column("goodput_error", "goodput error", "%"),
    Column("lost", "datagrams lost", numeric=False),
    Column("interval", "99 % interval", numeric=False),
)
_TARGET_COLUMNS = (
    Column("where", "where", numeric=False),
    Column("rtt", "RTT within max(1 ms, 1 %)", numeric=False),
    Column("goodput", "goodput within 3 %", numeric=False),
    Column("loss", "loss inside its 99 % interval", numeric=False),
    Column("cpu", "CPU use while measuring", "%"),
)


def accuracy_page(
    rows: Sequence[LinkAccuracy],
    loads: Sequence[LoadedLink],
    sites: Sequence[ManySites],
    hosts: Sequence[Mapping[str, Any]],
    load_hosts: Sequence[Mapping[str, Any]],
) -> MarkdownPage:
    """The targets and how they were met, links under load and networks of many sites, then every point.

    hosts, load_hosts: the fingerprints of where the grid was measured, and the rest but for the guest's rows.
    """
    drawing = draw_accuracy(rows)
    targets = text_table("targets", "", "", _TARGET_COLUMNS, [_summary(where, group) for where, group in _groups(rows)])
    refused = "; ".join(str(row.point) for row in rows if not row.gate_passed)
    parts = [
        "# Accuracy of the emulated WAN",
        "",
        "Every number on this page is written by `make accuracy`, which continues from the points in",
        "docs/accuracy.jsonl; without that file it measures all of them. It calls `longhaul bench wan",
        "--substrate netns --substrate docker --results docs/accuracy.jsonl` and, for the netem engine on a",
        "stock kernel, `python -m tests.qemu.accuracy_rows --results docs/accuracy.jsonl`. `longhaul docs",
        "accuracy` writes the page again from the file. Each point of the grid is a network of two sites with",
        "one link. RTT:",
        "median of 200 echoes from user space, so it includes the time to wake the echoing process; under jitter",
        "the mean. p95 excess RTT: 95 % of the echoes exceeded the declared RTT by less. Goodput: TCP on lossless",
        "links, otherwise numbered datagrams, against `rate x MSS / frame`; the worse direction. Loss: of numbered",
        "datagrams, both directions.",
        hosts_line(hosts),
        "",
        picture(drawing),
        "## Targets",
        "",
        targets.markdown(),
        "The loss interval has a confidence of 99 %: one link in a hundred may lie outside by chance. *Added",
        "load*: one training process per core at ordinary priority. *No added load*: none of ours, whatever else",
        "ran on the host. CPU use is that of the whole host while a point was measured: the emulation and the",
        "probes themselves, the added load, and other programs. Where it is near 100 % without added load, the",
        "rows were measured on a busy host, not on an idle one.",
        "",
        "## Accepted range",
        "",
        "The gate refuses a link whose RTT is off by more than 1 ms or 1 %, whose goodput is off by more than 3 %",
        "(in its short form, before and after each run: 2 ms or 2 %, and 6 %), or which loses packets it should",
        "not. A link that passes is at least as accurate as that, on any host. Points of this grid that it",
        "refused:",
        f"{refused or 'none'}.",
    ]
    parts += ["", *load_sections(loads, sites, hosts_line(load_hosts))]
    for where, group in _groups(rows):
        table = accuracy_table(group)
        shown = Table(table.name, "", "", table.columns[1:], table.rows)
        parts += ["", f"## {where[0].upper()}{where[1:]}", "", shown.markdown().rstrip()]
    return MarkdownPage("accuracy", "\n".join(parts), (drawing,))


def accuracy_table(rows: Sequence[LinkAccuracy]) -> Table:
    """Every point; '(!)' marks a value outside its target."""
    return text_table("accuracy", "Accuracy of emulated links", "", _POINT_COLUMNS, [_cells(row) for row in rows])


def _cells(row: LinkAccuracy) -> tuple[str, ...]:
    point = row.point
    jitter = f"{row.jitter_ms:.2f} / {row.jitter_ms_asked:.2f} ({point.distribution})" if point.distribution else "-"
    rtt, goodput, lost = ("" if good else " (!)" for good in (row.rtt_within, row.goodput_within, row.loss_within))
    return (
        f"{point.substrate}, {_load(row)}",
        point.rate,
        point.rtt,
        f"{100 * point.loss:.0f}",
        jitter,
        f"{row.rtt_error_ms:+.2f}{rtt}",
        f"{row.rtt_ms_late_95:.2f}",
        f"{100 * row.goodput_error:+.2f}{goodput}",
        f"{row.lost} of {row.datagrams}{lost}",
        f"{row.lost_least} - {row.lost_most}",
    )


def _load(row: LinkAccuracy) -> str:
    return "added load" if row.point.loaded else "no added load"


def _groups(rows: Sequence[LinkAccuracy]) -> list[tuple[str, list[LinkAccuracy]]]:
    """The rows of each substrate, engine and load, with their name, in the order of their first rows."""
    groups: dict[str, list[LinkAccuracy]] = {}
    for row in rows:
        groups.setdefault(f"{row.point.substrate}, {row.point.engine}, {_load(row)}", []).append(row)
    return list(groups.items())


def _summary(where: str, rows: Sequence[LinkAccuracy]) -> tuple[str, ...]:
    def share(flags: Sequence[bool]) -> str:
        return f"{sum(flags)} of {len(flags)}"

    lossy = [row for row in rows if row.point.loss]
    worst_rtt = max(rows, key=lambda row: abs(row.rtt_error_ms) if not row.point.distribution else 0.0)
    worst_goodput = max(rows, key=lambda row: abs(row.goodput_error) if not row.point.loss else 0.0)
    busy = sum(row.host_busy_percent for row in rows) / len(rows)
    return (
        where,
        f"{share([row.rtt_within for row in rows])} (worst {worst_rtt.rtt_error_ms:+.2f} ms)",
        f"{share([row.goodput_within for row in rows])} (worst lossless {100 * worst_goodput.goodput_error:+.2f} %)",
        share([row.loss_within for row in lossy]),
        f"{busy:.0f}",
    )


def draw_accuracy(rows: Sequence[LinkAccuracy]) -> Drawing:
    """Errors over rate and RTT of lossless links without jitter: a row of panels per substrate and load."""
    groups = [
        (where, [row for row in group if not row.point.loss and not row.point.distribution])
        for where, group in _groups(rows)
    ]
    data = pd.DataFrame(
        {
            "where": where,
            "rate_mbit": parse_rate(row.point.rate) / 1e6,
            "rtt": row.point.rtt,
            "rtt_error_ms": row.rtt_error_ms,
            "goodput_error_percent": 100 * row.goodput_error,
        }
        for where, group in groups
        for row in group
    )
    rtts = sorted(set(data["rtt"]), key=parse_duration)
    styles = series_styles(rtts, {})
    quantities = (
        ("rtt_error_ms", RTT_MS, "RTT error (ms)"),
        ("goodput_error_percent", 100 * GOODPUT_SHARE, "goodput error (%)"),
    )
    with report_style():
        figure, axes = panels(2 * len(groups), height=1.7, columns=2, share=False)
        for place, (where, _) in enumerate(groups):
            for (column, bound, name), panel in zip(quantities, axes[2 * place : 2 * place + 2], strict=True):
                panel.axhspan(-bound, bound, color="0.9", zorder=0)
                for rtt in rtts:
                    line = data[(data["where"] == where) & (data["rtt"] == rtt)].sort_values("rate_mbit")
                    panel.plot(line["rate_mbit"], line[column], **styles[rtt].keywords)
                log_axis(panel, "x", Scale(1.0, "Mbit/s"), sorted(set(data["rate_mbit"])))
                panel.set_ylim(-1.5 * bound, 1.5 * bound)
                panel.set_title(where)
                panel.set_xlabel("rate (Mbit/s)")
                panel.set_ylabel(name)
        legend(figure, styles, rtts)
    caption = "Lossless links without jitter, one line per declared RTT. Grey: the targets, 1 ms and 3 %."
    return Drawing("accuracy", "RTT and goodput errors over the grid", caption, figure, data)
