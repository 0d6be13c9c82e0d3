"""`longhaul validate RUNS`: predicted against measured, for runs that the calibration did not see."""

from __future__ import annotations

import json
import sys
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.costmodel.calibration import load_calibration
from harness.costmodel.fault_validation import QUANTITIES, errors_of
from harness.costmodel.published import SHARE, agreement, measured_error, published_cells, published_scenarios
from harness.costmodel.validation import CommunicationError, Validation, validate_runs
from harness.records.archive import read_runs, store_runs
from harness.spec.scenario import find_scenario, load_scenario
from netsim.errors import InputError
from reports.pages.fault_section import TITLES, pair
from reports.pages.markdown_page import write_page
from reports.pages.validation_page import validation_page


def validate(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Directories of runs, or files of --store; with --published, scenarios.", show_default=False
        ),
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="A file of `longhaul calibrate`.")] = None,
    store: Annotated[Path | None, typer.Option(help="Keep what comparing needs of RUNS in this file (.jsonl).")] = None,
    docs: Annotated[Path | None, typer.Option(help="Write validation.md and its plot into this directory.")] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Tables that papers print against their scenarios; by default all shipped."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare the wall time, bytes and memory of RUNS with what the cost model predicts."""
    if published:
        _published(runs or published_scenarios(), as_json)
        return
    if not runs:
        raise InputError("validate", "RUNS", "none", "directories of runs, or --published")
    constants = load_calibration(calibration) if calibration else None
    found = read_runs(runs, lambda problem: typer.echo(f"left out: {problem}", err=True))
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as progress:
        task = progress.add_task("predicting", total=len(found))
        validation = validate_runs(found, constants, lambda: progress.advance(task))
    if store is not None:
        store_runs(found, store)
    if docs is not None:
        write_page(validation_page(validation, constants), docs)
    if as_json:
        print(json.dumps(validation.to_json()))
    else:
        _show(validation)
    if not validation.bytes_exact:
        raise typer.Exit(1)


def _published(scenarios: list[Path], as_json: bool) -> None:
    cells = [cell for path in scenarios for cell in published_cells(load_scenario(find_scenario(str(path))))]
    if not cells:
        raise InputError(", ".join(map(str, scenarios)), "published", "nothing", "scenarios with a published block")
    share, error = agreement(cells), measured_error(cells)
    if as_json:
        document: dict[str, Any] = {"cells": [cell.to_json() for cell in cells], "agreement": share}
        if error is not None:
            names = ("mean_absolute_percentage_error", "max_absolute_percentage_error")
            document["measured"] = dict(zip(names, error, strict=True))
        print(json.dumps(document))
    else:
        table = Table("scenario", "method", "quantity", "published", "projected", "off", "agrees")
        for cell in cells:
            off = f"{cell.off:+.0f} notches" if cell.quantity.startswith("Gbit/s") else f"{cell.off:+.2f} %"
            projected = "none" if cell.projected is None else f"{cell.projected:.4g}"
            agrees = "measured" if cell.measured else "yes" if cell.agrees else "no"
            published = f"{cell.published:g}"
            table.add_row(cell.scenario, cell.label, cell.quantity, published, projected, off, agrees)
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        console.print(table)
        exact = sum(cell.off == 0 for cell in cells if cell.quantity.startswith("Gbit/s"))
        computed = sum(not cell.measured for cell in cells)
        if error is not None:
            console.print(f"{len(cells) - computed} measured cells: mean error {error[0]:.1f} %, max {error[1]:.1f} %")
        if computed:
            console.print(f"{computed} computed cells: {share:.0%} within one notch or 2 %, {exact} rates exact")
    if share < SHARE:
        raise typer.Exit(1)


def _show(validation: Validation) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table("run", "method", "topology", "measured s", "predicted s", "error", "bytes", "memory")
    for row in validation.rows:
        table.add_row(
            row.id,
            row.label,
            row.topology,
            f"{row.measured_wall_seconds:.2f}",
            f"{row.predicted_wall_seconds:.2f}" if row.predicted_wall_seconds is not None else row.why_not,
            f"{row.error:+.2%}" if row.error is not None else "",
            "exact" if row.bytes_exact else "DIFFER",
            "exact" if row.memory_exact else "DIFFER",
        )
    if validation.rows:
        console.print(table)
    for title, key in (("method", "algorithm"), ("topology", "topology"), ("substrate", "substrate")):
        for name, spread in validation.by(attrgetter(key)).items():
            console.print(
                f"{title:10} {name:24} mean {spread.mean:6.2f} %   max {spread.max:6.2f} %   ({spread.runs} runs)"
            )
    for title, by in (("method", "algorithm"), ("topology", "topology")):
        groups = validation.communication_by(attrgetter(by))
        for name, group in groups.items():
            errors = f"mean {group.mean:6.2f} %   max {group.max:6.2f} %   bias {group.bias:+6.2f} %"
            console.print(f"communication, {title:8} {name:24} {errors}   ({group.runs} runs)")
    for seeds in validation.seed_groups:
        measured = f"{seeds.measured_spread:.1%}" if seeds.measured_spread is not None else "-"
        console.print(
            f"under loss, {seeds.label} on {seeds.topology}: "
            f"mean of {seeds.runs} seeds {seeds.communication_error:+.1%}, "
            f"standard deviation of a run {measured} measured, {seeds.predicted_spread:.1%} predicted"
        )
    if headline := CommunicationError.of(validation.rows):
        errors = f"mean {headline.mean:.2f} %, max {headline.max:.2f} %, bias {headline.bias:+.2f} %"
        console.print(f"{validation.basis}: exposed communication {errors} over {headline.runs} runs", style="bold")
    if overall := validation.overall:
        console.print(
            f"{validation.basis}: wall time mean {overall.mean:.2f} %, max {overall.max:.2f} % over {overall.runs} runs"
        )
    if validation.faults:
        table = Table("run", *(TITLES[name] for name in QUANTITIES), title="faults: measured / predicted")
        for one in validation.faults:
            table.add_row(one.id, *(pair(name, one.quantities[name]) for name in QUANTITIES))
        console.print(table)
        for name, error in errors_of(validation.faults).items():
            mean, most = (f"{value:.1f} %" if value is not None else "-" for value in (error.mean, error.max))
            console.print(
                f"{TITLES[name]:16} exact in {error.exact} of {error.runs} runs   mean {mean:>8}   max {most:>8}"
            )
    for run, why in validation.left_out.items():
        console.print(f"not compared: {run}: {why}")
