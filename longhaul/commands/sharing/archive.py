"""`longhaul archive RUNS -o FILE`: records and their report in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsim.units import show_size
from reports.style.terminal import printable

_NAMED = 20  # things left out that are listed


def archive(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The new file: NAME.tar.zst, .tar.gz or .tar.xz.", show_default=False)
    ],
    baseline: Annotated[str | None, typer.Option(help="Label to compare with; default: the suite's own.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Put the report of the records in.")] = True,
) -> None:
    """Put suite, records, environment, package list and report of RUNS into one file that is read anywhere."""
    from reports.sharing.archive_writer import write_archive  # not before: it loads pandas and matplotlib

    written = write_archive(runs, out, baseline, report)
    for one in written.left_out[:_NAMED]:
        typer.echo(printable(f"left out: {one.path}: {one.why}"), err=True)
    if len(written.left_out) > _NAMED:
        typer.echo(f"left out: {len(written.left_out) - _NAMED} more, listed in archive.json", err=True)
    counts = f"{written.finished} finished and {written.unfinished} unfinished runs"
    typer.echo(f"{written.path}: {counts}, {show_size(written.bytes)}")
