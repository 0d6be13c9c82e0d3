"""`longhaul bench endurance`: memory, descriptors and records of long and wide runs."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.bench.endurance import CASES, EnduranceRow, endure
from harness.bench.rows import append_row
from longhaul.commands.benches.bench_soak import ENDURANCE, LONGHAUL
from netsim.emulated.network import resolve
from netsim.errors import InputError
from netsim.units import show_duration, show_size


def bench_endurance(
    case: Annotated[list[str] | None, typer.Option(help="Only cases whose name contains this.")] = None,
    substrate: Annotated[str, typer.Option(help="netns, docker or auto.")] = "auto",
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Append to docs/endurance.jsonl.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Watch memory and open files of long and wide runs: thirty cells, 5,000 steps, 64 sites."""
    console = Console(stderr=True, quiet=as_json, highlight=False)
    substrate = resolve(substrate).substrate
    chosen = [one for one in CASES if not case or any(word in one.name for word in case)]
    if not chosen:
        raise InputError("command line", "--case", case, "part of " + "; ".join(one.name for one in CASES))
    rows = []
    for one in chosen:
        with tempfile.TemporaryDirectory(prefix="longhaul-endurance-") as folder:
            Path(folder).chmod(0o755)
            row = endure(one, LONGHAUL, Path(folder), substrate)
        console.print(described(row), markup=False, soft_wrap=True)
        rows.append(row)
        if write_docs:
            append_row(ENDURANCE, row)
    if as_json:
        print(json.dumps({"bench": "endurance", "rows": [asdict(row) for row in rows]}))
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


def described(row: EnduranceRow) -> str:
    """One line about a case."""
    held = ", ".join(
        f"{one.process} {show_size(one.early_bytes)} to {show_size(one.late_bytes)}, "
        f"{one.early_descriptors:g} to {one.late_descriptors:g} descriptors{'' if one.flat else ' (grows)'}"
        for one in row.held
    )
    ended = f"{row.complete} of {row.cells} complete in {show_duration(row.seconds)}"
    records = f"{show_size(row.record_bytes)} of records{'' if row.bounded else ' (too much)'}"
    return f"{row.name}, {row.substrate}: {ended}; {held}; {records}"
