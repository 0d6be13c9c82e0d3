"""`longhaul project SCENARIO`: the cost model at scale."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.costmodel.planning import Answers
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.spec.scenario import Scenario, find_scenario, load_scenario
from longhaul.completion import scenarios
from longhaul.projections import project as evaluate
from netsim.units import show_duration, show_size

TITLES = {
    "bandwidth_for_utilisation": "least access rate for a compute utilisation (Gbit/s)",
    "break_even_period": "break-even period (local steps)",
    "sensitivities": "sensitivities (% of total time per % of the input)",
}
COLUMNS = {
    "rate_gbit": "rate (Gbit/s)",
    "rtt_ms": "RTT (ms)",
    "sync_every": "sync every (steps)",
    "break_even_sync_every": "break-even sync every (steps)",
    "sync_every_for_90_percent": "sync every for 90 % utilisation (steps)",
    "site_memory_bytes": "memory of a site (bytes)",
    "memory_bytes": "memory needed (bytes)",
    "total_seconds": "total (s)",
    "cost_usd": "cost (US$)",
    "elasticity": "elasticity (%/%)",
}


def project(
    scenario: Annotated[
        str,
        typer.Argument(
            help="A scenario file, or the name of one in the library, like photon-7b.", autocompletion=scenarios
        ),
    ],
    calibration: Annotated[Path | None, typer.Option(help="A file of `longhaul calibrate`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write tables and figures into this directory.")] = None,
    sweep_backend: Annotated[str, typer.Option(help="local, dask or ray.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Address of the cluster, like tcp://10.0.0.1:8786.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Local processes.")] = 1,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="The base of every method through SimPy, without the sweep.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Project every method of SCENARIO over its sweep: time, bytes, memory, and answers for planning."""
    loaded = load_scenario(find_scenario(scenario))
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as progress:
        task = progress.add_task("projecting", total=None)
        projection = evaluate(
            loaded,
            calibration,
            simulate=simulate,
            jobs=jobs,
            backend=sweep_backend,
            scheduler=scheduler,
            advance=lambda points: progress.update(task, total=points + 1, advance=1),
        )
    rows, found, document = projection.rows, projection.answers, projection.to_json()
    if out is not None:
        # matplotlib and pandas, which most calls do without, take longer to import than a projection
        from reports.projection.projection_figures import draw_figures
        from reports.projection.projection_tables import write_tables

        written = draw_figures(loaded, rows, found, out) + write_tables(loaded, rows, found, document, out)
        document["files"] = [str(path) for path in written]
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        _show(loaded, rows, found, document.get("files", []))


def _show(scenario: Scenario, rows: list[ProjectedRow], found: Answers, files: list[str]) -> None:
    # Into a pipe, Rich would cut everything to 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table("method", "bytes per worker", "compute", "exposed", "total", "band", "CU", "memory of a site", "fits")
    base = base_rows(rows, scenario)
    for row in base:
        band = row.error_band
        table.add_row(
            row.label,
            show_size(row.payload_bytes_per_worker),
            show_duration(row.compute_seconds),
            show_duration(row.communication_seconds),
            show_duration(row.total_seconds),
            f"{show_duration(band.low_seconds)} - {show_duration(band.high_seconds)}",
            f"{row.compute_utilisation:.1%}",
            show_size(row.memory_bytes_per_worker),
            "yes" if row.fits else "no",
        )
    console.print(f"{scenario.name}: {scenario.model.name}, {scenario.sites} sites", style="bold")
    console.print(table)
    for name, entries in found.to_json().items():
        if entries:
            console.print(_answer(name, entries))
    outside = sum(row.extrapolated for row in rows)
    basis = base[0].basis if base else ""
    console.print(f"{len(rows)} rows, basis: {basis}; {outside} outside what was calibrated")
    for path in files:
        console.print(path)


def _answer(name: str, entries: list[dict[str, Any]]) -> Table:
    flat = [
        {**entry, **entry.get("rate_gbit", {})} if isinstance(entry.get("rate_gbit"), dict) else entry
        for entry in entries
    ]
    keys = [key for key in flat[0] if not isinstance(flat[0][key], dict)]
    title = TITLES.get(name, name.replace("_", " "))
    table = Table(*(COLUMNS.get(key, key.replace("_", " ")) for key in keys), title=title, title_justify="left")
    for entry in flat:
        table.add_row(*(_cell(entry.get(key)) for key in keys))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
