"""`longhaul schemas`: JSON Schemas of documents and records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longhaul.json_schemas import SCHEMAS, schema_text
from netsim.errors import InputError


def schemas(
    name: Annotated[str | None, typer.Argument(help=f"{', '.join(SCHEMAS)}; default: all, with --out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write NAME.json into this directory instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of one kind of document or record, or write all of them."""
    if name is not None and name not in SCHEMAS:
        raise InputError.unknown("schemas", "", name, SCHEMAS)
    if out is None:
        if name is None:
            raise InputError(
                "schemas", "", "neither a name nor --out", f"--out DIRECTORY, or one of {', '.join(SCHEMAS)}"
            )
        print(schema_text(name), end="")
        return
    out.mkdir(parents=True, exist_ok=True)
    for kind in [name] if name is not None else SCHEMAS:
        (out / f"{kind}.json").write_text(schema_text(kind), encoding="utf-8")
        typer.echo(str(out / f"{kind}.json"))
