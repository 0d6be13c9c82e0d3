"""`longhaul clean`: removes what a killed run left behind."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from netsim.emulated.cleanup import sweep


def clean(as_json: bool = typer.Option(False, "--json", help="Print one JSON document and nothing else.")) -> None:
    """Removes what runs that have died left: processes, containers, networks, sockets. Live runs stay."""
    swept = sweep(containers=True)
    if as_json:
        print(json.dumps(asdict(swept), indent=2))
        return
    for kind, names in asdict(swept).items():
        for name in names:
            print(f"removed {kind}: {name}")
    if swept.nothing:
        print("nothing was left behind")
