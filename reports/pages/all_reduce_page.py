"""What `longhaul bench collectives` shows: a table in the terminal, a page and a figure in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.bench.all_reduce import AllReduceTimes

HEADINGS = (
    "substrate",
    "cores",
    "sites",
    "Mbit/s",
    "RTT ms",
    "streams",
    "rounds",
    "bound ms",
    "warm ms",
    "efficiency %",
    "worst %",
    "best %",
    "of floor %",
    "cold ms",
    "gloo ms",
    "gloo %",
    "gloo cold ms",
    "CPU s",
    "gloo CPU s",
    "host busy %",
    "links",
)


def cells(row: AllReduceTimes) -> tuple[str, ...]:
    """A row in the order of `HEADINGS`."""
    return (
        row.substrate,
        row.cores,
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
        f"{row.gloo_ms:.0f}",
        f"{row.gloo_percent:.0f}",
        f"{row.gloo_cold_ms:.0f}",
        f"{row.cpu_seconds:.2f}",
        f"{row.gloo_cpu_seconds:.2f}",
        f"{row.host_busy_percent:.0f}",
        "ok" if row.links_passed else "off",
    )


def terminal_table(rows: Sequence[AllReduceTimes], target: float) -> Table:
    """The columns that matter most, narrow enough for a terminal."""
    shown = [
        HEADINGS.index(name) for name in ("cores", "sites", "Mbit/s", "RTT ms", "bound ms", "warm ms", "efficiency %")
    ]
    shown += [HEADINGS.index(name) for name in ("cold ms", "gloo ms", "gloo %")]
    title = f"All-reduce over the WAN; target {target:g} % of the alpha-beta bound"
    made = Table(*(HEADINGS[index] for index in shown), title=title)
    for row in rows:
        chosen = cells(row)
        made.add_row(*(chosen[index] for index in shown), style="" if row.efficiency_percent >= target else "red")
    return made


PAGE = """# WAN collectives: how close to the bound

Written by `longhaul bench collectives --results docs/collectives.jsonl --out docs`, which goes on from the points
in the results file; without that file it measures all of them afresh. An all-reduce of {payload} MB of fp32 numbers,
by our exchange (algorithm: {algorithms}) and by plain gloo, on the same emulated networks in one run.

- **bound**: the alpha-beta cost of the cheapest algorithm on the topology; here two one-way delays plus 2 (N-1)/N of
  the payload at goodput (line rate less framing). Target: {target:g} %.
- **efficiency**: the bound over the median of the warm all-reduces; with several **rounds**, each on a network and on
  connections of its own, over the median of theirs; **worst**, **best**: of the slowest and of the fastest round.
- **floor**: the bound, had reduce-scatter and all-gather overlapped as far as causality allows. Ours do overlap, piece
  by piece, so an efficiency above 100 % is possible; above 100 % of the floor is not.
- **cold**: the first exchange on new connections, in which TCP opens its windows from 10 segments.
- **cores**: idle, or every core busy training at the priority of the workers, who then share what is left of it.
- **CPU**: processor seconds of all workers together for one warm all-reduce. All sites share this host, with the
  emulation itself; **host busy** is how busy its cores were with other things just before.
- **links**: whether the link check before the measurement passed.

![efficiency](figures/collectives.svg)

{table}

{verdict}

Host: {cpu}, {cores} cores, Linux {kernel}, Python {python}, torch {torch}.
"""


def write_page(rows: Sequence[AllReduceTimes], target: float, host: dict[str, Any], folder: Path) -> None:
    """`folder`/collectives.md and its figure."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "collectives.md").write_text(page(rows, target, host), encoding="utf-8")
    draw(rows, target, folder / "figures" / "collectives.svg")


def page(rows: Sequence[AllReduceTimes], target: float, host: dict[str, Any]) -> str:
    """The page docs/collectives.md."""
    lines = [
        "| " + " | ".join(HEADINGS) + " |",
        "| --- | --- |" + " ---: |" * (len(HEADINGS) - 2),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
    ]
    missed = [row for row in rows if row.efficiency_percent < target]
    named = "; ".join(f"{row.point} ({row.efficiency_percent:.0f} %)" for row in missed)
    verdict = f"Below the target: {named}." if missed else f"Every network reaches the target of {target:g} %."
    return PAGE.format(
        payload=f"{rows[0].payload_bytes / 1e6:g}",
        algorithms=", ".join(sorted({row.algorithm for row in rows})),
        target=target,
        table="\n".join(lines),
        verdict=verdict,
        cpu=host["cpu"],
        cores=host["cores"],
        kernel=host["kernel"],
        python=host["python"],
        torch=host["versions"]["torch"],
    )


def draw(rows: Sequence[AllReduceTimes], target: float, path: Path) -> None:
    """Efficiency against RTT: a panel per number of sites and rate."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "longhaul"
    from matplotlib import pyplot

    panels = sorted({(row.sites, row.rate_mbit) for row in rows})
    figure, grid = pyplot.subplots(
        1, len(panels), figsize=(1.9 * max(len(panels), 2) + 0.8, 3.0), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (sites, rate) in zip(grid[0], panels, strict=True):
        here = sorted((row for row in rows if (row.sites, row.rate_mbit) == (sites, rate)), key=lambda row: row.rtt_ms)
        idle, busy = ([row for row in here if row.loaded == loaded] for loaded in (False, True))
        rtts = sorted({row.rtt_ms for row in here})
        axes.axhline(100, color="0.7", linewidth=0.8)
        axes.axhline(target, color="0.7", linewidth=0.8, linestyle=":")
        for chosen, value, label, style, color in (
            (idle, "efficiency_percent", "ours, warm", "o-", "#0072B2"),
            (idle, "cold_percent", "ours, cold", "o:", "#56B4E9"),
            (idle, "gloo_percent", "gloo, warm", "s--", "#D55E00"),
            (busy, "efficiency_percent", "ours, warm, cores busy", "^-", "#009E73"),
        ):
            at = [row.rtt_ms for row in chosen]
            axes.plot(at, [getattr(row, value) for row in chosen], style, color=color, label=label, markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(rtts, [f"{rtt:g}" for rtt in rtts], minor=False)
        axes.minorticks_off()
        axes.set_ylim(0, 130)
        axes.set_title(f"{sites} sites, {rate:g} Mbit/s", fontsize=9)
        axes.set_xlabel("RTT, ms")
    grid[0][0].set_ylabel("of the alpha-beta bound, %")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
