"""`longhaul clean`: removes what a killed run left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict

import typer

from netsim.emulated.cleanup import sweep
from netsim.emulated.held.client import HeldNetwork, held_networks
from netsim.errors import LinkError


def clean(
    keep_open: bool = typer.Option(False, "--keep-open", help="Leave networks of `longhaul wan up` open."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document and nothing else."),
) -> None:
    """Removes what runs that have died left, and takes networks of `longhaul wan up` down. Live runs stay."""
    ended = [network.name for network in ([] if keep_open else held_networks()) if _end(network)]
    swept = sweep(containers=True)
    if as_json:
        print(json.dumps({**asdict(swept), "open_networks": ended}, indent=2))
        return
    for name in ended:
        print(f"took down open network: {name}")
    for kind, names in asdict(swept).items():
        for name in names:
            print(f"removed {kind}: {name}")
    if swept.nothing and not ended:
        print("nothing was left behind")


def _end(network: HeldNetwork) -> bool:
    """Also of a network whose holder does not answer any more: that is killed, and the sweep takes the rest."""
    try:
        network.end()
    except LinkError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(network.holder, signal.SIGKILL)
    return True
