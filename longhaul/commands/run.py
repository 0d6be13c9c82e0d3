"""`longhaul run SUITE`: runs the grid of a suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.records.layout import suite_description
from harness.records.run_record import read_record
from harness.spec.run_spec import RunSpec
from harness.spec.suite import Suite, find_suite, load_suite
from longhaul.completion import suites
from netsim.errors import InputError
from netsim.units import show_duration, show_size

if TYPE_CHECKING:
    from harness.run.suite_runner import CellOutcome


def recorded_spec(name: str) -> Path | None:
    """The spec.json of a run's record that `name` is or contains; None for a suite."""
    path = Path(name)
    path = path / "spec.json" if (path / "spec.json").is_file() else path
    return path if path.name == "spec.json" and path.is_file() else None


def replay_of(record: Path) -> Suite:
    """The suite of one cell that repeats a record. InputError for a spec that is damaged."""
    spec = read_record(record, RunSpec)
    return Suite(name=spec.suite, description=f"Replay of {record.parent.name}", baseline=spec.label, cells=(spec,))


def run(
    suite: Annotated[
        str,
        typer.Argument(
            help="A suite file, the name of one in the library, like quickstart, or a record's spec.json to replay.",
            autocompletion=suites,
        ),
    ],
    runs: Annotated[Path, typer.Option(help="Where records go.")] = Path("runs"),
    substrate: Annotated[str, typer.Option(help="netns, docker, compose or auto; before the suite's.")] = "auto",
    engine: Annotated[str, typer.Option(help="nfqueue, netem or auto.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and memory, print the cells and their bytes; run none.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run complete cells again.")] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Of a Dask cluster, like tcp://10.0.0.1:8786: one run at a time at each of its hosts."),
    ] = None,
    serve: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve a page about the run on 127.0.0.1 at this port; 0 takes a free one."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard event files under this directory while it runs.")
    ] = None,
    wandb: Annotated[
        Path | None, typer.Option(help="Write offline runs of W&B under this directory while it runs.")
    ] = None,
    trackio: Annotated[
        Path | None, typer.Option(help="Write trackio's databases in this directory while it runs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run every cell of SUITE: complete ones are reused, a failed one does not stop the rest."""
    # Here, so that help and the shell's completion do not wait for torch.
    from harness.run.suite_runner import cells_of, describe, run_suite
    from longhaul.commands.sharing.companions import followed
    from longhaul.progress import RunProgress
    from reports.live.trackers import Trackers

    trackers = Trackers(tensorboard, wandb, trackio)
    record = recorded_spec(suite)
    loaded = load_suite(find_suite(suite)) if record is None else replay_of(record)
    cells = cells_of(loaded, runs, substrate, engine)
    if record is not None and any(cell.directory == record.parent.absolute() for cell in cells):
        raise InputError(suite, "", "a replay into the record itself", "another folder, by --runs")
    if dry_run:
        from longhaul.commands.preview import check_host, expectation, missing_here

        check_host(cells)
        rows = [expectation(cell) for cell in cells]
        if as_json:
            cells_json = [row.to_json() for row in rows]
            print(json.dumps({"suite": loaded.name, "cells": cells_json, "missing": missing_here(cells)}))
        else:
            table = Table(
                "method", "topology", "seed", "state", "payload per worker", "state per worker", "expected wall"
            )
            for row in rows:
                wall = show_duration(row.wall_seconds) if row.wall_seconds is not None else "unknown (native compute)"
                table.add_row(
                    row.label,
                    row.topology,
                    str(row.seed),
                    row.state,
                    show_size(row.payload_bytes_per_worker),
                    show_size(row.memory_bytes_per_worker),
                    wall,
                )
            Console().print(table)
            if missing := missing_here(cells):
                Console().print(f"{loaded.name} {missing}.")
        return
    if record is None or not suite_description(runs / loaded.name).exists():
        describe(loaded, runs, cells)
    with RunProgress(len(cells), quiet=as_json) as progress, followed(cells, serve, trackers):
        try:
            if scheduler is None:
                outcomes = list(run_suite(cells, runs, fresh, progress))
            else:
                from harness.cluster.dask_suite import spread_suite

                outcomes = list(spread_suite(cells, fresh, progress, scheduler))
        except KeyboardInterrupt:
            typer.echo("interrupted: nodes and processes are gone, finished runs are kept", err=True)
            raise typer.Exit(130) from None
    if as_json:
        print(json.dumps({"suite": loaded.name, "runs": [_row(outcome) for outcome in outcomes]}))
    if not all(outcome.good for outcome in outcomes):
        raise typer.Exit(1)


def _row(outcome: CellOutcome) -> dict[str, object]:
    cell = outcome.cell
    return {
        "id": cell.run_id,
        "algorithm": cell.spec.method_name,
        "label": cell.spec.label,
        "topology": cell.spec.topology["name"],
        "seed": cell.spec.seed,
        "state": outcome.state,
        "reason": outcome.reason,
        "directory": str(cell.directory),
    }
