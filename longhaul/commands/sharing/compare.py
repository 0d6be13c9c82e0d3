"""`longhaul compare A B`: two sets of records beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reports.comparison.metrics import threshold_from

_MOST_ROWS = 40  # of changes by network that a terminal shows


def compare(
    a: Annotated[Path, typer.Argument(help="A directory or an archive of runs: before.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another: after.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Also write a page with tables and a figure here.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 where a method's change crosses this, like wall>1.1 or loss>0.02."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Paired differences between two sets of records, and what differs in settings, environment and code.

    Exit codes: 0 compared; 1 a threshold of --fail-if is crossed, or B lacks a run of A; 2 bad input.
    """
    thresholds = [threshold_from(text) for text in fail_if or ()]
    # Not before: it loads pandas and matplotlib.
    from reports.comparison.comparison_page import write_comparison
    from reports.comparison.comparison_tables import (
        comparison_json,
        failures,
        network_table,
        overall_table,
        settings_tables,
    )
    from reports.comparison.record_comparison import compare_records
    from reports.sharing.archive_reader import record_folders
    from reports.style.terminal import printable, terminal_table

    with record_folders([a, b]) as (before, after):
        comparison = compare_records(before, after, (str(a), str(b)))
    failed = failures(comparison, thresholds)
    page = write_comparison(comparison, out, failed) if out is not None else None
    if as_json:
        print(json.dumps(comparison_json(comparison, failed)))
    else:
        console = Console(highlight=False)
        console.print(f"A {printable(str(a))}\nB {printable(str(b))}\n{comparison.pairs} pairs of runs", markup=False)
        several = len({change.topology for change in comparison.changes}) > 1
        by_network = network_table(comparison)
        short = len(by_network.rows) <= _MOST_ROWS
        detailed = [by_network] if several and short else []
        for table in (overall_table(comparison), *detailed, *settings_tables(comparison)):
            console.print(terminal_table(table))
        if several and not short:
            console.print(f"By network: {len(by_network.rows)} more rows with --out or --json.")
        if comparison.settings.none:
            console.print("Settings, environment and code are the same.")
        for side, names in (("A", comparison.only_a), ("B", comparison.only_b)):
            for name in names:
                console.print(printable(f"only in {side}: {name}"), markup=False, soft_wrap=True)
        if page is not None:
            typer.echo(f"{page}")
    for line in failed:
        typer.echo(printable(line), err=True)
    if failed:
        raise typer.Exit(1)
