"""`longhaul list KIND`: what is shipped, by name."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from longhaul.catalogue import catalogue
from longhaul.completion import kinds


def list_shipped(
    kind: Annotated[
        str, typer.Argument(help="suites, topologies, scenarios, methods, models or devices.", autocompletion=kinds)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List what is shipped, by the names that `run`, `project`, `wan` and their files take."""
    entries = catalogue(kind)
    if as_json:
        print(json.dumps({"kind": kind, "entries": entries}, indent=2))
        return
    table = Table(*(key.replace("_", " ") for key in entries[0]))
    for entry in entries:
        table.add_row(*(str(value) for value in entry.values()))
    Console(highlight=False).print(table)
