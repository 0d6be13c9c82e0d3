"""docs/validation.md and its parity plot, written from a validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.costmodel.calibration import Calibration
from harness.costmodel.fault_validation import section
from harness.costmodel.validation import ComparedRun, Spread, Validation

_HEAD = """# Validation: predicted against measured

This page is written by `longhaul validate RUNS --calibration FILE --docs docs` from stored runs; no number is typed in.
Every row is a run on an emulated WAN that the calibration was not fitted to. Time is an error, bytes and memory are
equalities: the plan's bytes against the workers' ledgers, the method's persistent memory against the counted tensors.

    longhaul run suites/calibration.yaml --substrate netns && longhaul run suites/validation.yaml --substrate netns
    longhaul run suites/validation.yaml --substrate docker && longhaul run suites/validation-small.yaml
    longhaul calibrate runs/calibration -o docs/calibration.yaml
    longhaul run suites/faults-calibration.yaml --substrate netns && longhaul run suites/faults.yaml --substrate netns
    longhaul calibrate runs/faults-calibration --onto docs/calibration.yaml -o docs/calibration.yaml
    longhaul validate runs/calibration runs/validation runs/validation-small --calibration docs/calibration.yaml \\
        --store docs/validation-runs.jsonl
    longhaul validate runs/faults --calibration docs/calibration.yaml --store docs/fault-runs.jsonl
    longhaul validate docs/validation-runs.jsonl docs/fault-runs.jsonl --calibration docs/calibration.yaml --docs docs
"""


def write_page(validation: Validation, calibration: Calibration | None, folder: Path) -> Path:
    """`folder`/validation.md with validation-parity.{svg,png} beside it; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_parity(validation, folder)
    page = folder / "validation.md"
    page.write_text(page_text(validation, calibration), encoding="utf-8")
    return page


def page_text(validation: Validation, calibration: Calibration | None) -> str:
    """The page, in Markdown."""
    overall = validation.overall
    lines = [_HEAD, "## Summary", "", f"Basis: {validation.basis}."]
    if overall:
        lines += [
            f"{overall.runs} runs: mean absolute error of wall time {overall.mean:.2f} %, maximum {overall.max:.2f} %.",
            f"Bytes exact: {_yes(validation.bytes_exact)}. Persistent memory exact: {_yes(validation.memory_exact)}.",
        ]
    if validation.left_out:
        lines += [f"{len(validation.left_out)} more runs were read and not compared; the reasons are at the end."]
    lines += ["", "![predicted against measured wall time](validation-parity.svg)", ""]
    if calibration is not None:
        lines += _calibration(calibration)
    for title, groups in (
        ("By method", validation.by(lambda row: row.algorithm)),
        ("By topology", validation.by(lambda row: row.topology)),
        ("By substrate and engine", validation.by(lambda row: row.substrate)),
        ("By model", validation.by(lambda row: row.model)),
    ):
        lines += [f"## {title}", "", *_spreads(groups), ""]
    lines += ["## Every run", "", *_rows(validation.rows), ""]
    if validation.faults:
        lines += section(validation.faults)
    if validation.left_out:
        lines += ["## Not compared", ""]
        lines += [f"- `{run}`: {why}" for run, why in sorted(validation.left_out.items())] + [""]
    return "\n".join(lines)


def draw_parity(validation: Validation, folder: Path) -> None:
    """Predicted over measured wall time, one point per run, with the 5 % and 15 % bands."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    rows = [row for row in validation.rows if row.predicted_wall_seconds is not None]
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    if rows:
        ends = [row.measured_wall_seconds for row in rows] + [row.predicted_wall_seconds or 0 for row in rows]
        low, high = min(ends) * 0.9, max(ends) * 1.1
        for band, shade in ((0.15, 0.12), (0.05, 0.2)):
            axes.fill_between(
                [low, high],
                [low * (1 - band), high * (1 - band)],
                [low * (1 + band), high * (1 + band)],
                color="0.4",
                alpha=shade,
                linewidth=0,
                label=f"±{band:.0%}",
            )
        for method in sorted({row.algorithm for row in rows}):
            mine = [row for row in rows if row.algorithm == method]
            axes.plot(
                [row.measured_wall_seconds for row in mine],
                [row.predicted_wall_seconds or 0.0 for row in mine],
                "o",
                markersize=4,
                label=method,
            )
        axes.plot([low, high], [low, high], color="0.3", linewidth=0.8)
        axes.legend(fontsize=7, frameon=False)
    axes.set(xscale="log", yscale="log", xlabel="measured wall time (s)", ylabel="predicted wall time (s)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(ScalarFormatter())
    with mpl.rc_context({"svg.hashsalt": "longhaul"}):  # equal data draws equal files
        figure.savefig(folder / "validation-parity.svg", metadata={"Date": None})
    figure.savefig(folder / "validation-parity.png", dpi=150)


def _calibration(calibration: Calibration) -> list[str]:
    constants, domain = calibration.constants, calibration.domain
    host = constants.host_bandwidth
    return [
        "## Constants",
        "",
        f"{calibration.source}; mean error on these runs themselves {100 * calibration.error.mean:.2f} %.",
        "",
        "| constant | value |",
        "| --- | --- |",
        f"| goodput over what framing leaves | {constants.efficiency:.4g} |",
        f"| per message | {1e3 * constants.message_seconds:.3g} ms |",
        f"| per transfer and member | {1e3 * constants.transfer_seconds:.3g} ms |",
        f"| host time per byte of a member's tensor | {1e9 * constants.byte_seconds:.3g} ns |",
        f"| what the host can move, all workers together | {f'{host / 1e6:.4g} MB/s' if host else 'unlimited'} |",
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


def _recovery(calibration: Calibration) -> list[str]:
    found = calibration.recovery
    if found is None:
        return []
    return [
        f"| a decision about a loss ({found.source}) | {1e3 * found.meeting_seconds:.3g} ms |",
        f"| a trainer started again, until it asks to be let in | {found.start_seconds:.3g} s |",
        f"| a checkpoint, per byte | {1e9 * found.checkpoint_seconds_per_byte:.3g} ns |",
    ]


def _spreads(groups: Mapping[str, Spread]) -> list[str]:
    head = ["| | runs | mean error | max error |", "| --- | ---: | ---: | ---: |"]
    return head + [f"| {name} | {s.runs} | {s.mean:.2f} % | {s.max:.2f} % |" for name, s in groups.items()]


def _rows(rows: tuple[ComparedRun, ...]) -> list[str]:
    lines = [
        "| run | method | topology | substrate | model | sites | measured (s) | predicted (s) | error | "
        "communication, measured / predicted (s) | bytes | memory |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        predicted = f"{row.predicted_wall_seconds:.2f}" if row.predicted_wall_seconds is not None else row.why_not
        error = f"{100 * row.error:+.2f} %" if row.error is not None else ""
        communication = f"{row.measured_communication_seconds:.2f} / "
        if row.predicted_communication_seconds is not None:
            communication += f"{row.predicted_communication_seconds:.2f}"
        topology = f"{row.topology}*" if row.eventful else row.topology
        lines.append(
            f"| `{row.id}` | {row.label} | {topology} | {row.substrate} | {row.model} | {row.sites} | "
            f"{row.measured_wall_seconds:.2f} | {predicted} | {error} | {communication} | "
            f"{'exact' if row.bytes_exact else 'differ'} | {'exact' if row.memory_exact else 'differ'} |"
        )
    if any(row.eventful for row in rows):
        lines += ["", "\\* something happens to the network or to a site during the run"]
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"
