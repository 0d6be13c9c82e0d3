"""What `longhaul bench wan` shows: a table in the terminal, a page and a figure in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.bench.link_accuracy import GOODPUT_SHARE, RTT_MS, LinkAccuracy
from netsim.units import parse_duration, parse_rate

HEADINGS = (
    "rate",
    "RTT",
    "loss",
    "jitter ms",
    "RTT error ms",
    "95 % late by less, ms",
    "goodput error",
    "lost",
    "99 % interval",
)


def _cells(row: LinkAccuracy) -> list[str]:
    point = row.point
    jitter = f"{row.jitter_ms:.2f} of {row.jitter_ms_asked:.2f} ({point.distribution})" if point.distribution else "-"
    flags = (row.rtt_within, row.goodput_within, row.loss_within)
    rtt, goodput, lost = ("" if good else " (!)" for good in flags)
    return [
        point.rate,
        point.rtt,
        f"{point.loss:.0%}",
        jitter,
        f"{row.rtt_error_ms:+.2f}{rtt}",
        f"{row.rtt_ms_late_95:.2f}",
        f"{row.goodput_error:+.2%}{goodput}",
        f"{row.lost} of {row.datagrams}{lost}",
        f"{row.lost_least} - {row.lost_most}",
    ]


def terminal_table(rows: Sequence[LinkAccuracy]) -> Table:
    found = Table("where", *HEADINGS)
    for row in rows:
        found.add_row(f"{row.point.substrate} {_condition(row)}", *_cells(row))
    return found


def write_page(rows: Sequence[LinkAccuracy], host: dict[str, Any], folder: Path) -> None:
    """`folder`/accuracy.md and its figure."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "accuracy.md").write_text(page(rows, host), encoding="utf-8")
    draw(rows, folder / "figures" / "accuracy.svg")


def page(rows: Sequence[LinkAccuracy], host: dict[str, Any]) -> str:
    """docs/accuracy.md: the targets and how they were met, then every point."""
    parts = [
        "# How exact the emulated WAN is",
        "",
        "Every number on this page is written by",
        "`longhaul bench wan --substrate netns --substrate docker --results docs/accuracy.jsonl --out docs`, which",
        "goes on from the points in the results file; without that file it measures all of them afresh.",
        "Each point is a network of two sites with one link. RTT: median of 200 echoes from user space, so the time to",
        "wake the echoing process is in it; under jitter the mean. Goodput: TCP where nothing is lost, else numbered",
        "datagrams, against `rate x MSS / frame`; the worse direction. Loss: of numbered datagrams, both directions.",
        f"Host: {_host(host)}.",
        "",
        "![RTT and goodput errors over the grid](figures/accuracy.svg)",
        "",
        "## Targets",
        "",
        "| where | RTT within max(1 ms, 1 %) | goodput within 3 % | loss inside its 99 % interval | host busy |",
        "| --- | --- | --- | --- | --- |",
        *(_summary(where, list(group)) for where, group in groupby(rows, key=_where)),
        "",
        "The loss interval is one of 99 %: of a hundred links, one may lie outside by chance. `cores busy`: with a",
        "training process per core at ordinary priority; `idle`: without, whatever else the host was doing, which the",
        "last column states.",
        "",
        "## The envelope",
        "",
        "The gate refuses what is off by more than 1 ms or 1 % in RTT and 3 % in goodput (in its short form, which a",
        "run makes before and after itself: 2 ms or 2 %, and 6 %), or loses what it should not. What it lets pass is",
        "as exact as that, whatever this page says of another host. Points of this grid that it refused:",
        "; ".join(str(row.point) for row in rows if not row.gate_passed) or "none.",
    ]
    for where, group in groupby(rows, key=_where):
        parts += ["", f"## {where}", "", f"| {' | '.join(HEADINGS)} |", "|" + " --- |" * len(HEADINGS)]
        parts += [f"| {' | '.join(_cells(row))} |" for row in group]
    return "\n".join([*parts, ""])


def _condition(row: LinkAccuracy) -> str:
    return "cores busy" if row.point.loaded else "idle"


def _where(row: LinkAccuracy) -> str:
    return f"{row.point.substrate}, {row.point.engine}, {_condition(row)}"


def _summary(where: str, rows: list[LinkAccuracy]) -> str:
    def share(flags: Sequence[bool]) -> str:
        return f"{sum(flags)} of {len(flags)}"

    lossy = [row for row in rows if row.point.loss]
    worst_rtt = max(rows, key=lambda row: abs(row.rtt_error_ms) if not row.point.distribution else 0.0)
    worst_goodput = max(rows, key=lambda row: abs(row.goodput_error) if not row.point.loss else 0.0)
    busy = sum(row.host_busy_percent for row in rows) / len(rows)
    return (
        f"| {where} | {share([row.rtt_within for row in rows])} (worst {worst_rtt.rtt_error_ms:+.2f} ms) "
        f"| {share([row.goodput_within for row in rows])} (worst lossless {worst_goodput.goodput_error:+.2%}) "
        f"| {share([row.loss_within for row in lossy])} | {busy:.0f} % |"
    )


def _host(host: dict[str, Any]) -> str:
    named = [str(host[key]) for key in ("cpu", "kernel", "platform") if key in host]
    return ", ".join(named) or "not recorded"


def draw(rows: Sequence[LinkAccuracy], path: Path) -> None:
    """Errors over rate and RTT, lossless links: one row of panels per place and condition."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = [
        (where, [row for row in group if not row.point.loss and not row.point.distribution])
        for where, group in groupby(rows, key=_where)
    ]
    figure, axes = pyplot.subplots(len(groups), 2, figsize=(8, 2.3 * len(groups)), squeeze=False, layout="constrained")
    for (where, group), (left, right) in zip(groups, axes, strict=True):
        for rtt in sorted({row.point.rtt for row in group}, key=parse_duration):
            line = sorted((row for row in group if row.point.rtt == rtt), key=lambda row: parse_rate(row.point.rate))
            rates = [parse_rate(row.point.rate) / 1e6 for row in line]
            left.plot(rates, [row.rtt_error_ms for row in line], marker="o", label=rtt)
            right.plot(rates, [100 * row.goodput_error for row in line], marker="o", label=rtt)
        for axis, bound, title in ((left, RTT_MS, "RTT error, ms"), (right, 100 * GOODPUT_SHARE, "goodput error, %")):
            axis.axhspan(-bound, bound, color="0.9", zorder=0)
            axis.set_xscale("log")
            axis.set_ylim(-1.5 * bound, 1.5 * bound)
            axis.set_title(f"{title}: {where}", fontsize=8)
            axis.set_xlabel("Mbit/s", fontsize=8)
            axis.tick_params(labelsize=8)
        left.legend(title="RTT", fontsize=7, title_fontsize=7, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
