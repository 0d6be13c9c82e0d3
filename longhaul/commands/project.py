"""`longhaul project SCENARIO`: the cost model at scale."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.costmodel.calibration import load_calibration
from harness.costmodel.planning.answer_tables import Answers
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.spec.scenario import Scenario, find_scenario, load_scenario
from longhaul.completion import scenarios
from longhaul.projections import Projection
from longhaul.projections import project as evaluate
from netsim.errors import InputError
from netsim.units import show_duration, show_size
from reports.projection.answer_headings import heading_of, shown, title_of


def project(
    scenario: Annotated[
        str,
        typer.Argument(
            help="A scenario file, or the name of one in the library, like photon-7b.", autocompletion=scenarios
        ),
    ],
    calibration: Annotated[Path | None, typer.Option(help="A file of `longhaul calibrate`.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write tables and figures into this directory.")] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Write SCENARIO.html, whose sliders evaluate the closed form offline, into --out (or here)."
        ),
    ] = False,
    sweep_backend: Annotated[str, typer.Option(help="local, dask or ray.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Address of the cluster, like tcp://10.0.0.1:8786.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Local processes.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE instead of the file's, like 'deadline=30 d' or 'network.rate=1 Gbit'."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="The base of every method through SimPy, without the sweep.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Project every method of SCENARIO over its sweep: time, bytes, memory, and answers for planning."""
    loaded = load_scenario(find_scenario(scenario), _changes(set_ or ()))
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
        page_file = _page(loaded, projection, calibration, out or Path()) if page else None
    rows, found, document = projection.rows, projection.answers, projection.to_json()
    if out is not None:
        # matplotlib and pandas, which most calls do without, take longer to import than a projection
        from reports.projection.projection_figures import draw_figures
        from reports.projection.projection_tables import write_tables

        written = draw_figures(loaded, rows, found, out) + write_tables(loaded, rows, found, document, out)
        document["files"] = [str(path) for path in written]
    if page_file is not None:
        document["files"] = [*document.get("files", []), str(page_file)]
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        _show(loaded, rows, found, document.get("files", []))


def _changes(given: Sequence[str]) -> dict[str, Any]:
    """Values as YAML has them."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError("project", "--set", text, "KEY=VALUE, like 'deadline=30 d'")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError("project", f"--set {key}", value, "a value as in a YAML file") from None
    return found


def _page(scenario: Scenario, projection: Projection, calibration: Path | None, folder: Path) -> Path:
    from reports.projection.projection_page import write_page

    fitted = load_calibration(calibration) if calibration else None
    return write_page(scenario, projection.rows, projection.answers, fitted, folder)


def _show(scenario: Scenario, rows: list[ProjectedRow], found: Answers, files: list[str]) -> None:
    # Into a pipe, Rich would cut everything to 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    base = base_rows(rows, scenario)
    optional = {"waiting": any(row.waiting_seconds for row in base), "failures": scenario.failures is not None}
    heads = ("method", "parameters", "bytes per worker", "compute", "waiting", "exposed", "failures", "total", "band")
    shown = (head for head in heads if optional.get(head, True))
    table = Table(*shown, "CU", "memory of a site", "fits")
    for row in base:
        band = row.error_band
        table.add_row(
            row.label,
            f"{row.parameters / 1e9:.4g}e9",
            show_size(row.payload_bytes_per_worker),
            show_duration(row.compute_seconds),
            *([show_duration(row.waiting_seconds)] if optional["waiting"] else []),
            show_duration(row.communication_seconds),
            *([show_duration(row.failure_seconds)] if optional["failures"] else []),
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
    flat = [dict(entry) for entry in entries]
    for entry in flat:
        for inner in [value for value in entry.values() if isinstance(value, dict)]:
            entry.update(inner)
    keys = [key for key in flat[0] if not isinstance(flat[0][key], dict)]
    table = Table(*map(heading_of, keys), title=title_of(name), title_justify="left")
    for entry in flat:
        table.add_row(*(shown(entry.get(key)) for key in keys))
    return table
