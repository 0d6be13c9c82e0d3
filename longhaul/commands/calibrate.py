"""`longhaul calibrate RUNS -o FILE`: fits the cost model's constants to stored runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from harness.costmodel.calibration import load_calibration, save_calibration
from netsim.errors import InputError


def calibrate(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of runs, like runs/calibration, or files of `validate --store`.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration file to write.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: the file's.")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            help="Keep this calibration, and fit to RUNS only what recovering from faults takes, and native steps."
        ),
    ] = None,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(help="Runs that are not fitted to: their error widens the bands of projections. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit the cost model's constants to RUNS, and write them with their provenance and domain."""
    # Here, so that help does not wait for torch and SciPy.
    from harness.costmodel.fit import fit, fit_recovery, native_steps
    from harness.costmodel.validation import held_out_error
    from harness.records.archive import read_runs

    if not output.parent.is_dir():
        raise InputError(str(output), "", "no such directory", "a file in a directory that exists")
    found = read_runs(runs, lambda problem: typer.echo(f"left out: {problem}", err=True))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json, transient=True) as progress:
        task = progress.add_task(f"fitting to {len(found)} runs", total=None)
        where = ", ".join(map(str, runs))
        native = native_steps(found) if onto is not None else ()
        if onto is not None:
            calibration = load_calibration(onto).with_native_steps(native)
        else:
            calibration = fit(found, name or output.stem, where, jobs, lambda: progress.advance(task))
        recovery = fit_recovery(found, calibration)
    if onto is not None and recovery is None:
        if not (held_out or native):
            allowed = "one or more valid runs that recovered from a loss as expected, or computed natively"
            raise InputError(where, "", f"{len(found)} runs", allowed)
        recovery = calibration.recovery
    calibration = calibration.model_copy(update={"recovery": recovery})
    if held_out:
        error = held_out_error(read_runs(held_out), calibration, ", ".join(map(str, held_out)))
        calibration = calibration.model_copy(update={"held_out": error})
    save_calibration(calibration, output)
    if as_json:
        print(json.dumps(calibration.model_dump(mode="json")))
        return
    console = Console(highlight=False)
    for constant, value in calibration.constants.model_dump().items():
        console.print(f"{constant:18} {value}")
    if recovery is not None:
        console.print(f"recovery: {recovery.meeting_seconds} s, start {recovery.start_seconds} s ({recovery.source})")
    if calibration.held_out is not None:
        unseen = calibration.held_out
        of = f"{unseen.runs} runs that it did not see"
        console.print(f"error of exposed communication on {of}: mean {unseen.mean:.2%}, max {unseen.max:.2%}")
    error = calibration.error
    console.print(f"error on the {error.runs} runs of the fit: mean {error.mean:.2%}, max {error.max:.2%} -> {output}")
