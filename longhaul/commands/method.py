"""`longhaul method`: what a method must hold to, checked."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from algorithms.method import names
from harness.conformance.checks import check_method, lines
from netsim.errors import InputError
from netsim.library import ROOT

app = typer.Typer(no_args_is_help=True)
_METHOD = typer.Argument(help="A Python file that defines METHOD, or the name of a method.")
_OPTIONS = typer.Option("{}", "--options", help="Options as JSON; by default short periods.")
_JSON = typer.Option(False, "--json", help="Print one JSON document and nothing else.")


@app.callback()
def method() -> None:
    """Check methods, ours and your own."""


@app.command()
def check(name: str = _METHOD, options: str = _OPTIONS, as_json: bool = _JSON) -> None:
    """Plan and ledger, memory and tensors, checkpoints, two networks, documentation. Exit code 1 if one fails."""
    try:
        given = json.loads(options)
    except json.JSONDecodeError as error:
        raise InputError("--options", "", options, f"a JSON object ({error})") from None
    page = ROOT / "docs" / "methods.md"
    text = page.read_text(encoding="utf-8") if name in names() and page.is_file() else ""
    place = str(Path(name).resolve()) if name.endswith(".py") else name
    checks = check_method(place, given or None, text)
    print(json.dumps([asdict(found) for found in checks], indent=2) if as_json else "\n".join(lines(checks)))
    if not all(found.passed for found in checks):
        raise typer.Exit(1)
