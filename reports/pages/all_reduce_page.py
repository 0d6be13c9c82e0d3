"""docs/collectives.md: all-reduce over the WAN against the alpha-beta bound, beside plain gloo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from harness.bench.all_reduce import AllReduceTimes
from harness.bench.torch_backends import BackendTimes
from netsim.units import show_size
from reports.pages.markdown_page import MarkdownPage, host_line, picture
from reports.style.drawing import Drawing, legend, panels, report_style
from reports.style.palette import GREY, series_styles
from reports.style.tables import Column, Table, Value, text_table

_COLUMNS = (
    Column("substrate", "substrate", numeric=False),
    Column("load", "load", numeric=False),
    Column("sites", "sites"),
    Column("rate", "rate", "Mbit/s"),
    Column("rtt", "RTT", "ms"),
    Column("streams", "streams"),
    Column("rounds", "rounds"),
    Column("bound", "bound", "ms"),
    Column("warm", "warm", "ms"),
    Column("efficiency", "efficiency", "%"),
    Column("worst", "worst", "%"),
    Column("best", "best", "%"),
    Column("floor", "of floor", "%"),
    Column("cold", "cold", "ms"),
    Column("cold_open", "cold, windows open", "ms"),
    Column("segments", "open from", "segments"),
    Column("cold_ratio", "cold, windows open / bound"),
    Column("gloo", "gloo warm", "ms"),
    Column("gloo_efficiency", "gloo efficiency", "%"),
    Column("gloo_cold", "gloo cold", "ms"),
    Column("cpu", "CPU", "s"),
    Column("gloo_cpu", "gloo CPU", "s"),
    Column("busy", "CPU use before", "%"),
    Column("links", "link check", numeric=False),
)
TERMINAL_COLUMNS = ("load", "sites", "rate", "rtt", "bound", "warm", "efficiency", "cold", "gloo", "gloo_efficiency")
_SERIES = {  # key -> (label, whether with added load, attribute)
    "warm": ("ours, warm", False, "efficiency_percent"),
    "cold": ("ours, cold", False, "cold_percent"),
    "gloo": ("gloo, warm", False, "gloo_percent"),
    "loaded": ("ours, warm, added load", True, "efficiency_percent"),
}

_TEXT = """# WAN collectives: how close to the bound

Written by `make collectives`, that is `longhaul bench collectives --results docs/collectives.jsonl --out docs`, which
continues from the points in the results file; without that file it measures all of them. `longhaul docs collectives`
writes the page again from the file. An all-reduce of {payload} MB of fp32 numbers, by our exchange (algorithm:
{algorithms}) and by plain gloo, on the same emulated networks in one run.

- **bound**: the alpha-beta cost of the cheapest algorithm on the topology; here two one-way delays plus 2 (N-1)/N of
  the payload at goodput (line rate less framing). Target: {target:g} %.
- **efficiency**: the bound over the median of the warm all-reduces; with several **rounds**, each on its own network
  and connections, over the median of the rounds; **worst**, **best**: of the slowest and of the fastest round.
- **floor**: the bound if reduce-scatter and all-gather overlapped as far as causality allows. Ours do overlap, chunk
  by chunk, so an efficiency above 100 % is possible; above 100 % of the floor is not.
- **cold**: the first exchange on new connections, while TCP opens its windows from 10 segments. **cold, windows
  open**: the same where the topology has `transport: {{initial_window: N}}`, N such that the connections together fill
  the path at once (the node's route then has `initcwnd` and `initrwnd`). "-": not measured.
- **load**: *none*: no load of ours; *added*: every core also trains at the priority of the workers, who share the
  cores with it.
- **CPU**: processor seconds of all workers together for one warm all-reduce. All sites share this host with the
  emulation itself; **CPU use before** is that of the whole host in the second before the measurement.
- **link check**: whether the links passed the check before the measurement.

{figure}
{table}
{verdict}

{host}
{backends}"""
_BACKEND_COLUMNS = (
    Column("substrate", "substrate", numeric=False),
    Column("sites", "sites"),
    Column("rate", "rate", numeric=False),
    Column("rtt", "RTT", numeric=False),
    Column("payload", "payload", numeric=False),
    Column("bound", "bound", "ms"),
    Column("ours", "longhaul warm", "ms"),
    Column("gloo", "gloo warm", "ms"),
    Column("ours_cold", "longhaul cold", "ms"),
    Column("gloo_cold", "gloo cold", "ms"),
    Column("busy", "CPU use before", "%"),
    Column("links", "link check", numeric=False),
)
_BACKENDS = """
## Through torch.distributed

`all_reduce` of a script, by `init_process_group("longhaul")` and by `init_process_group("gloo")`, both on the same
network, its topology known as under `longhaul wan torchrun`. Small payloads cost delays, not bytes.

{table}"""


def collectives_page(
    rows: Sequence[AllReduceTimes],
    target: float,
    host: Mapping[str, Any] | None,
    hosts: Mapping[str, Mapping[str, Any]] | None = None,
    backends: Sequence[BackendTimes] = (),
) -> MarkdownPage:
    """`target`: percent of the bound; `host`: the fingerprint of where `rows` were measured; `hosts`: of which rows.

    backends: through torch.distributed; without any, their section is left out.
    """
    drawing = draw_efficiency(rows, target)
    missed = [row for row in rows if row.efficiency_percent < target]
    named = "; ".join(f"{row.point} ({row.efficiency_percent:.0f} %)" for row in missed)
    verdict = f"Below the target: {named}." if missed else f"Every network reaches the target of {target:g} %."
    table = collectives_table(rows, target)
    text = _TEXT.format(
        payload=f"{rows[0].payload_bytes / 1e6:g}",
        algorithms=", ".join(sorted({row.algorithm for row in rows})),
        target=target,
        figure=picture(drawing),
        table=_plain(table),
        verdict=verdict,
        host=_hosts(host, hosts or {}),
        backends=_BACKENDS.format(table=_plain(backends_table(backends))) if backends else "",
    )
    return MarkdownPage("collectives", text, (drawing,))


def _plain(table: Table) -> str:
    return Table(table.name, "", "", table.columns, table.rows).markdown()


def _hosts(host: Mapping[str, Any] | None, hosts: Mapping[str, Mapping[str, Any]]) -> str:
    if len({str(one) for one in hosts.values()}) < 2:
        return host_line(next(iter(hosts.values()), host))
    return "\n".join(f"- {name}: {host_line(one).removeprefix('Host: ')}" for name, one in hosts.items())


def collectives_table(rows: Sequence[AllReduceTimes], target: float) -> Table:
    """One row for each network of the grid."""
    title = f"All-reduce over the WAN; target {target:g} % of the alpha-beta bound"
    table = text_table("collectives", title, "", _COLUMNS, [_cells(row) for row in rows])
    exact = [Value(row.efficiency_percent, f"{row.efficiency_percent:.0f}") for row in rows]
    shown = tuple({**cells, "efficiency": value} for cells, value in zip(table.rows, exact, strict=True))
    return replace(table, rows=shown)


def _cells(row: AllReduceTimes) -> tuple[str, ...]:
    return (
        row.substrate,
        "added" if row.loaded else "none",
        str(row.sites),
        f"{row.rate_mbit:g}",
        f"{row.rtt_ms:g}",
        str(row.streams),
        str(row.rounds),
        f"{row.bound_ms:.0f}",
        f"{row.warm_ms:.0f}",
        f"{row.efficiency_percent:.0f}",
        f"{row.worst_percent:.0f}",
        f"{row.best_percent:.0f}",
        f"{row.of_floor_percent:.0f}",
        f"{row.cold_ms:.0f}",
        "-" if row.cold_open_ms is None else f"{row.cold_open_ms:.0f}",
        "-" if row.open_segments is None else str(row.open_segments),
        "-" if row.cold_open_ms is None else f"{row.cold_open_ms / row.bound_ms:.2f}",
        f"{row.gloo_ms:.0f}",
        f"{row.gloo_percent:.0f}",
        f"{row.gloo_cold_ms:.0f}",
        f"{row.cpu_seconds:.2f}",
        f"{row.gloo_cpu_seconds:.2f}",
        f"{row.host_busy_percent:.0f}",
        "passed" if row.links_passed else "failed",
    )


def backends_table(rows: Sequence[BackendTimes]) -> Table:
    """One row for each network and payload."""
    cells = [
        (
            row.backend_point.substrate,
            str(row.backend_point.sites),
            row.backend_point.rate,
            row.backend_point.rtt,
            show_size(row.backend_point.payload_bytes),
            f"{row.bound_ms:.0f}",
            f"{row.ours_ms:.0f}",
            f"{row.gloo_ms:.0f}",
            f"{row.ours_cold_ms:.0f}",
            f"{row.gloo_cold_ms:.0f}",
            f"{row.host_busy_percent:.0f}",
            "passed" if row.links_passed else "failed",
        )
        for row in rows
    ]
    return text_table("backends", "All-reduce through torch.distributed", "", _BACKEND_COLUMNS, cells)


def draw_efficiency(rows: Sequence[AllReduceTimes], target: float) -> Drawing:
    """Efficiency against RTT: a panel per number of sites and rate, of the substrate with the most rows."""
    drawn, _ = Counter(row.substrate for row in rows).most_common(1)[0]
    rows = [row for row in rows if row.substrate == drawn]
    data = pd.DataFrame(
        {
            "sites": row.sites,
            "rate_mbit": row.rate_mbit,
            "rtt_ms": row.rtt_ms,
            "series": label,
            "efficiency_percent": getattr(row, attribute),
        }
        for row in rows
        for label, loaded, attribute in _SERIES.values()
        if row.loaded == loaded
    )
    places = sorted({(row.sites, row.rate_mbit) for row in rows})
    labels = [label for label, _, _ in _SERIES.values() if label in set(data["series"])]
    styles = series_styles(labels, {})
    with report_style():
        figure, axes = panels(len(places), height=2.0)
        for (sites, rate), panel in zip(places, axes, strict=True):
            here = data[(data["sites"] == sites) & (data["rate_mbit"] == rate)].sort_values("rtt_ms")
            panel.axhline(100, color=GREY, linewidth=0.8)
            panel.axhline(target, color=GREY, linewidth=0.8, linestyle=":")
            for label in labels:
                line = here[here["series"] == label]
                panel.plot(line["rtt_ms"], line["efficiency_percent"], **styles[label].keywords)
            rtts = sorted(set(here["rtt_ms"]))
            panel.set_xscale("log")
            panel.set_xticks(rtts, [f"{rtt:g}" for rtt in rtts], minor=False)
            panel.minorticks_off()
            panel.set_ylim(0, 130)
            panel.set_title(f"{sites} sites, {rate:g} Mbit/s")
            panel.set_xlabel("RTT (ms)")
        for left in axes[::3]:
            left.set_ylabel("of the bound (%)")
        legend(figure, styles, labels)
    caption = f"The alpha-beta bound over the measured time. Solid line: the bound; dotted: the target of {target:g} %."
    return Drawing("collectives", "Efficiency of all-reduce over the WAN", caption, figure, data)
