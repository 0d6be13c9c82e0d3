"""`longhaul validate RUNS`: predicted against measured, for runs that the calibration did not see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.costmodel.calibration import load_calibration
from harness.costmodel.fault_validation import QUANTITIES, TITLES, errors_of, pair
from harness.costmodel.validation import Validation, validate_runs
from harness.records.archive import read_runs, store_runs
from reports.pages.markdown_page import write_page
from reports.pages.validation_page import validation_page


def validate(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs, or files of --store.")],
    calibration: Annotated[Path | None, typer.Option(help="A file of `longhaul calibrate`.")] = None,
    store: Annotated[Path | None, typer.Option(help="Keep what comparing needs of RUNS in this file (.jsonl).")] = None,
    docs: Annotated[Path | None, typer.Option(help="Write validation.md and its plot into this directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare the wall time, bytes and memory of RUNS with what the cost model predicts."""
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


def _show(validation: Validation) -> None:
    console = Console(highlight=False)
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
        for name, spread in validation.by(lambda row, key=key: str(getattr(row, key))).items():  # type: ignore[misc]
            console.print(
                f"{title:10} {name:24} mean {spread.mean:6.2f} %   max {spread.max:6.2f} %   ({spread.runs} runs)"
            )
    if overall := validation.overall:
        console.print(
            f"{validation.basis}: mean {overall.mean:.2f} %, max {overall.max:.2f} % over {overall.runs} runs"
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
