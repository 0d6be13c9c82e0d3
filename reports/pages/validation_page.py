"""docs/validation.md: predicted against measured, from stored runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import pandas as pd

from harness.costmodel.calibration import Calibration
from harness.costmodel.validation import CommunicationError, ComparedRun, SeedGroup, Spread, Validation, loss_of
from reports.pages.fault_section import fault_section
from reports.pages.markdown_page import MarkdownPage, picture
from reports.style.drawing import Drawing, legend, log_axis, panels, report_style
from reports.style.palette import GREY, series_styles
from reports.style.quantities import Scale
from reports.style.tables import Column, text_table

_HEAD = """# Validation: predicted against measured

Written by `longhaul docs validation` from docs/validation-runs.jsonl, docs/loss-runs.jsonl, docs/fault-runs.jsonl and
docs/calibration.yaml, which the commands below make. Every row is a run on an emulated WAN that the calibration was not
fitted to. Time has an error; bytes and memory must be equal: the plan's bytes to the workers' ledgers, the method's
persistent memory to the counted tensors. The error of exposed communication, what steps waited for, comes first: a
paced step takes as long as it is told to, so that the error of wall time is smaller than what the model gets wrong.
Errors are predicted over measured, less one.

    longhaul run suites/calibration.yaml --substrate netns && longhaul run suites/validation.yaml --substrate netns
    longhaul run suites/validation.yaml --substrate docker && longhaul run suites/validation-small.yaml
    longhaul run suites/validation-wide.yaml --substrate netns
    longhaul run suites/validation-loss.yaml --substrate netns
    longhaul run suites/calibration-native.yaml --substrate netns
    longhaul run suites/validation-native.yaml --substrate netns
    longhaul calibrate runs/calibration --name two-core-host -o docs/calibration.yaml
    longhaul calibrate runs/calibration-native --onto docs/calibration.yaml -o docs/calibration.yaml
    longhaul validate runs/calibration runs/validation runs/validation-small runs/validation-wide \\
        runs/calibration-native runs/validation-native \\
        --calibration docs/calibration.yaml --store docs/validation-runs.jsonl
    longhaul validate runs/validation-loss --calibration docs/calibration.yaml --store docs/loss-runs.jsonl
    longhaul run suites/faults-calibration.yaml --substrate netns && longhaul run suites/faults.yaml --substrate netns
    longhaul calibrate runs/faults-calibration --onto docs/calibration.yaml -o docs/calibration.yaml \\
        --held-out docs/validation-runs.jsonl
    longhaul validate runs/faults --calibration docs/calibration.yaml --store docs/fault-runs.jsonl
    longhaul docs validation
"""


def validation_page(validation: Validation, calibration: Calibration | None) -> MarkdownPage:
    """validation.md with its parity plot."""
    drawings = (draw_parity(validation),) if validation.rows else ()
    return MarkdownPage("validation", page_text(validation, calibration), drawings)


def page_text(validation: Validation, calibration: Calibration | None) -> str:
    """The page, in Markdown."""
    overall = validation.overall
    lines = [_HEAD, "## Summary", "", f"Basis: {validation.basis}."]
    if overall:
        lines += [
            *_headline(validation),
            f"Wall time: mean absolute error {overall.mean:.2f} %, maximum {overall.max:.2f} %.",
            f"Bytes exact: {_yes(validation.bytes_exact)}. Persistent memory exact: {_yes(validation.memory_exact)}.",
        ]
    if validation.left_out:
        lines += [f"{len(validation.left_out)} more runs were read and not compared; the reasons are at the end."]
    lines += ["", picture(draw_parity(validation)), ""] if validation.rows else [""]
    if calibration is not None:
        lines += _calibration(calibration)
    lines += ["## Exposed communication by method and network", "", _matrix(validation)]
    if groups := validation.seed_groups:
        lines += _seed_groups(groups)
    for title, key in _GROUPS.items():
        lines += [f"## {title}", "", _spreads(validation.communication_by(key), validation.by(key))]
    lines += ["## Every run", "", _rows(validation.rows)]
    if validation.faults:
        lines += [fault_section(validation.faults)]
    if validation.left_out:
        lines += ["## Not compared", ""]
        lines += [f"- `{run}`: {why}" for run, why in sorted(validation.left_out.items())] + [""]
    return "\n".join(lines)


def _headline(validation: Validation) -> list[str]:
    groups = validation.communication_by(loss_of)
    found = [
        f"{error.runs} runs on {name}: mean absolute error of exposed communication {error.mean:.2f} %, "
        f"maximum {error.max:.2f} %, signed mean {error.bias:+.2f} %."
        for name, error in sorted(groups.items(), reverse=True)
    ]
    if means := CommunicationError.of(validation.seed_groups):
        found += [
            f"Under loss each run is random; of the means of {means.runs} groups that differ in their seed alone "
            f"the mean absolute error is {means.mean:.2f} %, the maximum {means.max:.2f} %."
        ]
    return found


def _seed_groups(groups: tuple[SeedGroup, ...]) -> list[str]:
    columns = (
        Column("method", "method", numeric=False),
        Column("network", "network", numeric=False),
        Column("runs", "runs"),
        Column("measured", "measured", "s"),
        Column("predicted", "predicted", "s"),
        Column("error", "error", "%"),
        Column("spread", "standard deviation of a run, measured", "%"),
        Column("drawn", "predicted", "%"),
    )
    rows = [
        (
            group.label,
            group.topology,
            str(group.runs),
            f"{group.measured:.2f}",
            f"{group.predicted:.2f}",
            f"{100 * group.communication_error:+.1f}",
            f"{100 * group.measured_spread:.1f}" if group.measured_spread is not None else "",
            f"{100 * group.predicted_spread:.1f}",
        )
        for group in groups
    ]
    return [
        "## Exposed communication under loss",
        "",
        "A run under loss is as random as its losses; its prediction is the mean of several that are drawn. Here are "
        "means of runs that differ in their seed alone, and how far single ones are from them.",
        "",
        text_table("seeds", "", "", columns, rows).markdown(),
    ]


def _matrix(validation: Validation) -> str:
    """Signed errors, one row per network and substrate, one column per method; the mean where there are several."""
    methods = sorted({row.label for row in validation.rows})
    places = sorted({(row.topology, row.sites, row.substrate) for row in validation.rows})
    found = validation.communication_by(lambda row: repr((row.label, row.topology, row.sites, row.substrate)))
    columns = (
        Column("network", "network", numeric=False),
        Column("sites", "sites"),
        Column("substrate", "substrate", numeric=False),
        *(Column(name, name, "%") for name in methods),
    )
    rows = []
    for place in places:
        errors = [found.get(repr((name, *place))) for name in methods]
        network, sites, substrate = place
        rows.append((network, str(sites), substrate, *(f"{e.bias:+.1f}" if e is not None else "" for e in errors)))
    return text_table("matrix", "", "", columns, rows).markdown()


def draw_parity(validation: Validation) -> Drawing:
    """Predicted over measured exposed communication, one point per run, with the 3 % and 10 % bands."""
    data = pd.DataFrame(
        [
            (row.id, row.algorithm, row.lossy, row.measured_communication_seconds, row.predicted_communication_seconds)
            for row in validation.rows
            if row.communication_error is not None
        ],
        columns=["run", "method", "lossy", "measured_seconds", "predicted_seconds"],
    )
    methods = sorted(set(data["method"]))
    styles = series_styles(methods, {name: name for name in methods})
    with report_style():
        figure, (axes,) = panels(1, height=2.9)
        axes.set(xscale="log", yscale="log")
        if len(data):
            seconds = data[["measured_seconds", "predicted_seconds"]].astype(float)
            low, high = 0.9 * float(seconds.min().min()), 1.1 * float(seconds.max().max())
            for band, shade in ((0.1, 0.12), (0.03, 0.2)):
                lower, upper = ([end * (1 + side * band) for end in (low, high)] for side in (-1, 1))
                axes.fill_between([low, high], lower, upper, color=GREY, alpha=shade, linewidth=0)
            axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
            axes.set(xlim=(low, high), ylim=(low, high))
        for method, lossy in product(methods, (False, True)):
            mine = data[(data["method"] == method) & (data["lossy"] == lossy)]
            hollow = {"markerfacecolor": "none"} if lossy else {}
            look = {**styles[method].keywords, "linestyle": "none", **hollow}
            axes.plot(mine["measured_seconds"], mine["predicted_seconds"], **look)
        axes.set(xlabel="measured communication (s)", ylabel="predicted communication (s)")
        for which in ("x", "y"):
            log_axis(axes, which, Scale(1.0, "s"))
        legend(figure, styles, methods, line=False)
    caption = "One point per run; hollow: on links that lose packets. Bands: 3 % and 10 % around equality."
    return Drawing("validation-parity", "Predicted against measured exposed communication", caption, figure, data)


def _calibration(calibration: Calibration) -> list[str]:
    constants, domain = calibration.constants, calibration.domain
    host = constants.host_bandwidth
    return [
        "## Constants",
        "",
        f"{calibration.source}; mean error of wall time on these runs themselves {100 * calibration.error.mean:.2f} %.",
        *_held_out(calibration),
        "",
        "| constant | value |",
        "| --- | --- |",
        f"| goodput over line rate less framing | {constants.efficiency:.4g} |",
        f"| per message | {1e3 * constants.message_seconds:.3g} ms |",
        f"| per transfer and member | {1e3 * constants.transfer_seconds:.3g} ms |",
        f"| host time per byte of a member's tensor | {1e9 * constants.byte_seconds:.3g} ns |",
        f"| memory bandwidth of the host, all workers together | {f'{host / 1e6:.4g} MB/s' if host else 'unlimited'} |",
        f"| a paced step beyond its slot | {1e3 * calibration.step_overhead_seconds:.3g} ms |",
        *_recovery(calibration),
        f"| connections begin in slow start | {_yes(constants.cold_start)} |",
        "",
        f"Domain: {domain.rate.low / 1e6:g} - {domain.rate.high / 1e6:g} Mbit/s, "
        f"{1e3 * domain.rtt.low:g} - {1e3 * domain.rtt.high:g} ms RTT, "
        f"{domain.sites.low:g} - {domain.sites.high:g} sites, "
        f"{domain.transfer_bytes.low:g} - {domain.transfer_bytes.high:g} bytes per transfer.",
        "",
    ]


def _held_out(calibration: Calibration) -> list[str]:
    error = calibration.held_out
    if error is None:
        return []
    return [
        f"The error of exposed communication on {error.runs} runs that the fit did not see, "
        f"mean {100 * error.mean:.2f} %, maximum {100 * error.max:.2f} %, "
        "widens the bands of projections with this calibration."
    ]


def _recovery(calibration: Calibration) -> list[str]:
    found = calibration.recovery
    if found is None:
        return []
    return [
        f"| deciding on a lost worker ({found.source}) | {1e3 * found.meeting_seconds:.3g} ms |",
        f"| worker restart time | {found.start_seconds:.3g} s |",
        f"| checkpoint, per byte | {1e9 * found.checkpoint_seconds_per_byte:.3g} ns |",
    ]


_GROUPS: dict[str, Callable[[ComparedRun], str]] = {
    "By method": lambda row: row.label,
    "By topology": lambda row: row.topology,
    "By loss": loss_of,
    "By substrate and engine": lambda row: row.substrate,
    "By model": lambda row: row.model,
}


def _spreads(communication: Mapping[str, CommunicationError], wall: Mapping[str, Spread]) -> str:
    columns = (
        Column("group", "", numeric=False),
        Column("runs", "runs"),
        Column("bias", "communication, signed mean", "%"),
        Column("mean", "mean absolute", "%"),
        Column("max", "maximum absolute", "%"),
        Column("wall", "wall time, mean absolute", "%"),
        Column("wall_max", "maximum absolute", "%"),
    )
    rows = []
    for name, error in communication.items():
        seconds = (f"{wall[name].mean:.2f}", f"{wall[name].max:.2f}") if name in wall else ("", "")
        rows.append((name, str(error.runs), f"{error.bias:+.2f}", f"{error.mean:.2f}", f"{error.max:.2f}", *seconds))
    return text_table("spreads", "", "", columns, rows).markdown()


_RUN_COLUMNS = (
    Column("run", "run", numeric=False),
    Column("label", "method", numeric=False),
    Column("topology", "network", numeric=False),
    Column("substrate", "substrate", numeric=False),
    Column("model", "model", numeric=False),
    Column("sites", "sites"),
    Column("measured", "measured", "s"),
    Column("predicted", "predicted", "s"),
    Column("error", "error", "%"),
    Column("communication", "communication, measured / predicted", "s"),
    Column("communication_error", "error", "%"),
    Column("bytes", "bytes", numeric=False),
    Column("memory", "memory", numeric=False),
)


def _rows(rows: tuple[ComparedRun, ...]) -> str:
    text = text_table("runs", "", "", _RUN_COLUMNS, [_cells(row) for row in rows]).markdown()
    noted = any(row.eventful for row in rows)
    return f"{text}\n\\* with events on the network's timeline or declared faults\n" if noted else text


def _cells(row: ComparedRun) -> tuple[str, ...]:
    communication = f"{row.measured_communication_seconds:.2f} / "
    if row.predicted_communication_seconds is not None:
        communication += f"{row.predicted_communication_seconds:.2f}"
    return (
        row.id,
        row.label,
        f"{row.topology}*" if row.eventful else row.topology,
        row.substrate,
        row.model,
        str(row.sites),
        f"{row.measured_wall_seconds:.2f}",
        f"{row.predicted_wall_seconds:.2f}" if row.predicted_wall_seconds is not None else row.why_not,
        f"{100 * row.error:+.2f}" if row.error is not None else "",
        communication,
        f"{100 * row.communication_error:+.1f}" if row.communication_error is not None else "",
        "exact" if row.bytes_exact else "differ",
        "exact" if row.memory_exact else "differ",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
