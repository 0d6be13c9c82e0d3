"""Figures of a projection, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from harness.costmodel.planning import Answers, Cheapest, Sensitivity
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.spec.scenario import Scenario

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "longhaul",  # equal data draws equal files
}
DASHES = ("-", "--", "-.", ":")


def draw_figures(scenario: Scenario, rows: Sequence[ProjectedRow], found: Answers, folder: Path) -> list[Path]:
    """Every figure that the scenario has data for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def save(name: str, draw: Callable[[Axes], None], width: float = 5.2, height: float = 3.4) -> None:
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure.add_subplot())
            for kind in ("svg", "png"):
                path = folder / f"{scenario.name}-{name}.{kind}"
                figure.savefig(path, dpi=160, metadata={"Date": None} if kind == "svg" else None)
                written.append(path)

    base = [row for row in rows if row.axis == "base"]
    if scenario.rtt is not None and len({row.rate_gbit for row in base}) > 1:
        there = [row for row in base if row.rtt_ms == 1e3 * scenario.rtt]
        save("time", lambda axes: _over_rate(axes, there, "hours"))
        save("utilisation", lambda axes: _over_rate(axes, there, "compute_utilisation"))
        cells = found.cheapest or ()
        if len(cells) > len({row.rate_gbit for row in base}):
            save("fastest", lambda axes: _map(axes, cells))
    save("memory", lambda axes: _memory(axes, base_rows(rows, scenario), scenario))
    save("memory-over-time", lambda axes: _memory_over_time(axes, base_rows(rows, scenario)))
    if sensitivities := found.sensitivities:
        save("sensitivity", lambda axes: _sensitivities(axes, sensitivities), height=4.2)
    return written


def _labels(rows: Sequence[ProjectedRow] | Sequence[Sensitivity]) -> list[str]:
    return list(dict.fromkeys(row.label for row in rows))


def _over_rate(axes: Axes, rows: Sequence[ProjectedRow], what: str) -> None:
    for index, label in enumerate(_labels(rows)):
        mine = sorted((row for row in rows if row.label == label), key=lambda row: row.rate_gbit)
        rates = [row.rate_gbit for row in mine]
        if what == "hours":
            values = [row.total_seconds / 3600 for row in mine]
            band = [(row.error_band.low_seconds / 3600, row.error_band.high_seconds / 3600) for row in mine]
            axes.fill_between(rates, [low for low, _ in band], [high for _, high in band], alpha=0.12, linewidth=0)
        else:
            values = [row.compute_utilisation for row in mine]
        axes.plot(rates, values, DASHES[index // 10 % len(DASHES)], marker=".", label=label)
    axes.set(xscale="log", xlabel="access link rate (Gbit/s)")
    if what == "hours":
        axes.set(yscale="log", ylabel="time for the scenario's tokens (h)")
    else:
        axes.set(ylim=(0, 1.02), ylabel="compute utilisation")
    axes.legend(ncols=2)


def _map(axes: Axes, cells: Sequence[Cheapest]) -> None:
    """Which method takes least time per token at each rate and RTT."""
    rates, rtts = sorted({cell.rate_gbit for cell in cells}), sorted({cell.rtt_ms for cell in cells})
    winners = list(dict.fromkeys(cell.fastest for cell in cells))
    at = {(cell.rate_gbit, cell.rtt_ms): winners.index(cell.fastest) for cell in cells}
    grid = [[at[rate, rtt] for rate in rates] for rtt in rtts]
    colours = ListedColormap([mpl.colormaps["tab10"](index % 10) for index in range(len(winners))])
    axes.imshow(grid, origin="lower", aspect="auto", cmap=colours, vmin=-0.5, vmax=len(winners) - 0.5, alpha=0.65)
    for y, line in enumerate(grid):
        for x, winner in enumerate(line):
            axes.text(x, y, winners[winner].replace(" ", "\n"), ha="center", va="center", fontsize=5)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(rtts)), [f"{rtt:g}" for rtt in rtts])
    axes.set(xlabel="access link rate (Gbit/s)", ylabel="RTT (ms)", title="least time per token")


def _memory(axes: Axes, rows: Sequence[ProjectedRow], scenario: Scenario) -> None:
    labels, left = [row.label for row in rows], [0.0] * len(rows)
    components = list(dict.fromkeys(name for row in rows for name in row.memory))
    colours = mpl.colormaps["tab20"]
    for index, component in enumerate(components):
        sizes = [row.memory.get(component, 0) / 1e9 for row in rows]
        axes.barh(labels, sizes, left=left, label=component.replace("_", " "), color=colours(index % 20))
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    axes.axvline(scenario.site_memory / 1e9, color="0.2", linewidth=0.8, linestyle="--", label="a site has")
    axes.invert_yaxis()
    axes.set(xlabel="memory of a site (GB)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _memory_over_time(axes: Axes, rows: Sequence[ProjectedRow]) -> None:
    """Through the last local step of a round and its synchronisation."""
    for index, row in enumerate(rows):
        memory = row.memory
        points = round_profile(
            persistent=sum(memory.values()) - memory["activations"] - memory["communication_buffers"],
            activations=memory["activations"],
            buffers=memory["communication_buffers"],
            step_seconds=row.step_seconds,
            sync_seconds=row.communication_seconds / max(1, row.syncs),
        )
        times, sizes = zip(*points, strict=True)
        line = DASHES[index // 10 % len(DASHES)]
        axes.plot(times, [size / 1e9 for size in sizes], line, label=row.label)
    axes.set(
        xlabel="time since the last local step of a round began (s)", ylabel="memory of a site (GB)", ylim=(0, None)
    )
    axes.set_xscale("symlog", linthresh=max(row.step_seconds for row in rows))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _sensitivities(axes: Axes, rows: Sequence[Sensitivity]) -> None:
    labels, inputs = _labels(rows), list(dict.fromkeys(row.input for row in rows))
    height = 0.8 / len(inputs)
    for index, name in enumerate(inputs):
        mine = {row.label: row.elasticity for row in rows if row.input == name}
        places = [labels.index(label) + (index + 0.5) * height - 0.4 for label in mine]
        axes.barh(places, list(mine.values()), height=height, label=name)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.6)
    axes.set(xlabel="% change of total time per % change of the input")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def round_profile(
    *,
    persistent: float,
    activations: float,
    buffers: float,
    step_seconds: float,
    sync_seconds: float,
    backward_share: float = 2 / 3,
) -> list[tuple[float, float]]:
    """(seconds, bytes) through the last local step of a round and the synchronisation that follows, piecewise linear.

    Activations grow through the forward pass and shrink through the backward pass. Buffers are there while the
    synchronisation lasts; the state that persists is there all the time.
    """
    turn = step_seconds * (1 - backward_share)
    points = [(0.0, persistent), (turn, persistent + activations), (step_seconds, persistent)]
    if sync_seconds > 0:
        end = step_seconds + sync_seconds
        points += [(step_seconds, persistent + buffers), (end, persistent + buffers), (end, persistent)]
    return points
