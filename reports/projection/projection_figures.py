"""Figures of a projection, in the style of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.costmodel.planning.answer_tables import Answers, Cheapest, Sensitivity
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.spec.scenario import Scenario
from reports.style.drawing import (
    DOUBLE,
    SINGLE,
    Drawing,
    legend,
    log_axis,
    panels,
    plain,
    plain_ticks,
    report_style,
    write_images,
)
from reports.style.palette import GREY, INK, SeriesStyle, fills_of, series_styles
from reports.style.quantities import Scale


def draw_figures(scenario: Scenario, rows: Sequence[ProjectedRow], found: Answers, folder: Path) -> list[Path]:
    """Every figure that the scenario has data for, as PNG and SVG; returns the files."""
    drawings: list[Drawing] = []
    styles = _styles(rows)

    def add(name: str, title: str, caption: str, draw: Callable[[], tuple[Figure, pd.DataFrame]]) -> None:
        with report_style():
            figure, data = draw()
        drawings.append(Drawing(f"{scenario.name}-{name}", title, caption, figure, data))

    base = [row for row in rows if row.axis == "base"]
    if scenario.rtt is not None and len({row.rate_gbit for row in base}) > 1:
        there = [row for row in base if row.rtt_ms == 1e3 * scenario.rtt]
        add("time", "Time against rate", "Shaded: the error band.", lambda: _hours(there, styles))
        add("utilisation", "Compute utilisation against rate", "", lambda: _utilisation(there, styles))
        cells = found.cheapest or ()
        if len(cells) > len({row.rate_gbit for row in base}):
            add("fastest", "Least time per token", "", lambda: _map(cells, styles))
    at_base = base_rows(rows, scenario)
    add("memory", "Memory of a site", "Dashed: what a site has.", lambda: _memory(at_base, scenario))
    add("memory-over-time", "Memory over a round", "", lambda: _memory_over_time(at_base, styles))
    if sensitivities := found.sensitivities:
        add("sensitivity", "Sensitivity of total time", "", lambda: _sensitivities(sensitivities))
    for drawing in drawings:
        write_images(drawing, folder)
    return [folder / f"{drawing.name}.{kind}" for drawing in drawings for kind in ("svg", "png")]


def _styles(rows: Sequence[ProjectedRow]) -> dict[str, SeriesStyle]:
    return series_styles(_labels(rows), {row.label: row.algorithm for row in rows})


def _labels(rows: Sequence[ProjectedRow] | Sequence[Sensitivity]) -> list[str]:
    return list(dict.fromkeys(row.label for row in rows))


def _hours(rows: Sequence[ProjectedRow], styles: dict[str, SeriesStyle]) -> tuple[Figure, pd.DataFrame]:
    data = pd.DataFrame(
        {
            "label": row.label,
            "rate_gbit": row.rate_gbit,
            "hours": row.total_seconds / 3600,
            "low": row.error_band.low_seconds / 3600,
            "high": row.error_band.high_seconds / 3600,
        }
        for row in rows
    )
    figure, (axes,) = panels(1, height=2.6)
    for label, line in data.sort_values("rate_gbit").groupby("label", sort=False):
        axes.fill_between(
            line["rate_gbit"], line["low"], line["high"], color=styles[str(label)].colour, alpha=0.12, linewidth=0
        )
        axes.plot(line["rate_gbit"], line["hours"], **styles[str(label)].keywords)
    axes.set(xlabel="access link rate (Gbit/s)", ylabel="time for the tokens (h)", yscale="log")
    log_axis(axes, "x", Scale(1.0, "Gbit/s"))
    log_axis(axes, "y", Scale(1.0, "h"))
    legend(figure, styles, _labels(rows))
    return figure, data


def _utilisation(rows: Sequence[ProjectedRow], styles: dict[str, SeriesStyle]) -> tuple[Figure, pd.DataFrame]:
    data = pd.DataFrame(
        {"label": row.label, "rate_gbit": row.rate_gbit, "compute_utilisation": row.compute_utilisation} for row in rows
    )
    figure, (axes,) = panels(1, height=2.6)
    for label, line in data.sort_values("rate_gbit").groupby("label", sort=False):
        axes.plot(line["rate_gbit"], line["compute_utilisation"], **styles[str(label)].keywords)
    axes.set(xlabel="access link rate (Gbit/s)", ylim=(0, 1.02), ylabel="compute utilisation")
    log_axis(axes, "x", Scale(1.0, "Gbit/s"))
    legend(figure, styles, _labels(rows))
    return figure, data


def _map(cells: Sequence[Cheapest], styles: dict[str, SeriesStyle]) -> tuple[Figure, pd.DataFrame]:
    """The method with the least time per token at each rate and RTT."""
    rates, rtts = sorted({cell.rate_gbit for cell in cells}), sorted({cell.rtt_ms for cell in cells})
    winners = list(dict.fromkeys(cell.fastest for cell in cells))
    at = {(cell.rate_gbit, cell.rtt_ms): winners.index(cell.fastest) for cell in cells}
    grid = [[at[rate, rtt] for rate in rates] for rtt in rtts]
    figure = Figure(figsize=(DOUBLE if len(rates) > 6 else SINGLE, 0.9 + 0.35 * len(rtts)))
    axes = figure.subplots()
    colours = ListedColormap([to_rgba(styles[winner].colour, 0.3) for winner in winners])
    axes.imshow(grid, origin="lower", aspect="auto", cmap=colours, vmin=-0.5, vmax=len(winners) - 0.5)
    for y, line in enumerate(grid):
        for x, winner in enumerate(line):
            axes.text(x, y, plain(winners[winner]).replace(" ", "\n"), ha="center", va="center", fontsize=5)
    axes.grid(visible=False)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(rtts)), [f"{rtt:g}" for rtt in rtts])
    axes.set(xlabel="access link rate (Gbit/s)", ylabel="RTT (ms)")
    columns = ["rate_gbit", "rtt_ms", "fastest"]
    return figure, pd.DataFrame([(cell.rate_gbit, cell.rtt_ms, cell.fastest) for cell in cells], columns=columns)


def _memory(rows: Sequence[ProjectedRow], scenario: Scenario) -> tuple[Figure, pd.DataFrame]:
    labels, left = [plain(row.label) for row in rows], [0.0] * len(rows)
    components = list(dict.fromkeys(name for row in rows for name in row.memory))
    fills = fills_of(components)
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.22 * len(rows) + 0.14 * -(-len(components) // 4)))
    axes = figure.subplots()
    for component in components:
        sizes = [row.memory.get(component, 0) / 1e9 for row in rows]
        axes.barh(range(len(rows)), sizes, left=left, height=0.72, linewidth=0.3, **fills[component].keywords)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    axes.axvline(scenario.site_memory / 1e9, color=INK, linewidth=1.0, linestyle="--")
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("memory of a site (GB)")
    handles = [Patch(label=plain(name.replace("_", " ")), **fills[name].keywords) for name in components]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    data = pd.DataFrame(
        [(row.label, name, size) for row in rows for name, size in row.memory.items()],
        columns=["label", "component", "bytes"],
    )
    return figure, data


def _memory_over_time(rows: Sequence[ProjectedRow], styles: dict[str, SeriesStyle]) -> tuple[Figure, pd.DataFrame]:
    """Through the last local step of a round and its synchronisation."""
    figure, (axes,) = panels(1, height=2.6)
    parts: list[tuple[str, float, float]] = []
    for row in rows:
        memory = row.memory
        points = round_profile(
            persistent=sum(memory.values()) - memory["activations"] - memory["communication_buffers"],
            activations=memory["activations"],
            buffers=memory["communication_buffers"],
            step_seconds=row.step_seconds,
            sync_seconds=row.communication_seconds / max(1, row.syncs),
        )
        times, sizes = zip(*points, strict=True)
        axes.plot(
            times, [size / 1e9 for size in sizes], color=styles[row.label].colour, linestyle=styles[row.label].line
        )
        parts += [(row.label, seconds, size) for seconds, size in points]
    axes.set(xlabel="time since a round's last local step began (s)", ylabel="memory of a site (GB)", ylim=(0, None))
    axes.set_xscale("symlog", linthresh=max(row.step_seconds for row in rows))
    plain_ticks(axes, "x")
    axes.set_xlim(left=0)
    legend(figure, {label: SeriesStyle(one.colour, one.line, "") for label, one in styles.items()}, _labels(rows))
    return figure, pd.DataFrame(parts, columns=["label", "seconds", "bytes"])


def _sensitivities(rows: Sequence[Sensitivity]) -> tuple[Figure, pd.DataFrame]:
    labels, inputs = _labels(rows), list(dict.fromkeys(row.input for row in rows))
    fills = fills_of(inputs)
    height = 0.8 / len(inputs)
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.32 * len(labels)))
    axes = figure.subplots()
    for index, name in enumerate(inputs):
        mine = {row.label: row.elasticity for row in rows if row.input == name}
        places = [labels.index(label) + (index + 0.5) * height - 0.4 for label in mine]
        axes.barh(places, list(mine.values()), height=height, linewidth=0.3, **fills[name].keywords)
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel="change of total time (%) per change of the input (%)")
    handles = [Patch(label=name.replace("_", " "), **fills[name].keywords) for name in inputs]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    columns = ["label", "input", "elasticity"]
    return figure, pd.DataFrame([(row.label, row.input, row.elasticity) for row in rows], columns=columns)


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
