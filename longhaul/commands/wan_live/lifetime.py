"""`longhaul wan up`, `list` and `down`: networks that stay open without a runner."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from longhaul.completion import topologies
from netsim.emulated.held.client import HeldNetwork, find_held, held_networks, hold
from netsim.emulated.substrates.gpus import chosen_gpus
from netsim.errors import InputError, LinkError
from netsim.topology import find_topology
from netsim.units import parse_duration, show_duration

LONGEST = 7 * 86_400.0  # seconds that a network may stay open
NAME = typer.Option("--name", "-n", help="Which open network; needed only where several are open.")
JSON = typer.Option("--json", help="Print one JSON document and nothing else.")
MOUNT = typer.Option("--mount", help="A folder that programs in containers may read; by default the current one.")
WRITABLE = typer.Option("--writable", help="A folder that programs in containers may also write to.")
GPUS = typer.Option("--gpus", help="GPUs that programs may use: auto (all that the host has), none, or like 0,1.")


def up(
    topology: Annotated[
        str, typer.Argument(help="A topology file, or the name of one in the library.", autocompletion=topologies)
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="What to call it; by default as the topology.")] = "",
    lifetime: Annotated[str, typer.Option("--for", help="How long it stays open at most.")] = "1h",
    substrate: Annotated[str, typer.Option(help="auto, netns or docker.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, nfqueue or netem.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of loss and jitter.")] = 0,
    mount: Annotated[list[Path] | None, MOUNT] = None,
    writable: Annotated[list[Path] | None, WRITABLE] = None,
    play: Annotated[bool, typer.Option("--play", help="Play the topology's timeline from now on.")] = False,
    check: Annotated[bool, typer.Option(help="Probe the links before saying that it is open.")] = True,
    gpus: Annotated[str, GPUS] = "auto",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Open a network that stays until `longhaul wan down`, for anybody's programs. Exit code 1 if its links are off."""
    network = hold(
        find_topology(topology),
        name=name,
        seconds=_lifetime(lifetime),
        substrate=_held_substrate(substrate),
        engine=engine,
        seed=seed,
        read_only=mounted(mount),
        writable=existing(writable, "--writable"),
        play=play,
        gpus=chosen_gpus(gpus),
    )
    try:
        report = network.check(short=True) if check and not play else None
        if report is not None and not report["passed"]:
            raise LinkError("; ".join(report["problems"]))
    except BaseException:
        network.end()
        raise
    if as_json:
        print(json.dumps(_document(network), indent=2))
        return
    console = Console()
    console.print(
        f"[bold]{network.name}[/bold] is open on {network.substrate}, engine {network.engine} ({network.reason}), for "
        f"{show_duration(network.until - network.opened)} at most",
        highlight=False,
    )
    console.print(_sites(network))
    if network.engine == "nfqueue":
        console.print("Use `ping -U`: without it ping takes the time when an answer comes, before its delay here.")


def list_open(as_json: Annotated[bool, JSON] = False) -> None:
    """The networks that are open."""
    networks = held_networks()
    if as_json:
        print(json.dumps([_document(network) for network in networks], indent=2))
        return
    if not networks:
        print("no network is open")
        return
    table = Table("network", "topology", "substrate", "engine", "sites", "closes in")
    for network in networks:
        sites = ", ".join(site.site for site in network.sites)
        left = show_duration(max(0.0, round(network.until - time.time())))
        table.add_row(network.name, network.topology, network.substrate, network.engine, sites, left)
    Console().print(table)


def down(
    name: Annotated[str, NAME] = "",
    everything: Annotated[bool, typer.Option("--all", help="All open networks.")] = False,
) -> None:
    """Take an open network down, with all programs in it."""
    for network in held_networks() if everything else [find_held(name)]:
        network.end()
        print(f"{network.name} is down")


def mounted(folders: list[Path] | None) -> list[Path]:
    """What containers see: the folders asked for, else the current one."""
    if folders:
        return existing(folders, "--mount")
    here = Path.cwd()
    return [here] if here != Path("/") else []


def existing(folders: list[Path] | None, option: str) -> list[Path]:
    """The folders, absolute. InputError for one that does not exist, which a container engine would make."""
    for folder in folders or ():
        if not folder.is_dir():
            raise InputError(option, "", str(folder), "a folder that exists")
    return [folder.absolute() for folder in folders or ()]


def _held_substrate(name: str) -> str:
    if name == "compose":
        raise InputError("--substrate", "", name, "auto, netns or docker: compose lends its sites to one runner")
    return name


def duration(option: str, text: str) -> float:
    """The seconds that an option gives. InputError for what is no duration."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(option, "", text, str(error)) from None


def _lifetime(text: str) -> float:
    seconds = duration("--for", text)
    if not 0 < seconds <= LONGEST:
        raise InputError("--for", "", text, f"more than nothing, and at most {show_duration(LONGEST)}")
    return seconds


def _sites(network: HeldNetwork) -> Table:
    table = Table("site", "wan0", "mgmt0")
    for site in network.sites:
        table.add_row(site.site, site.wan, site.mgmt)
    return table


def _document(network: HeldNetwork) -> dict[str, Any]:
    paths = {"directory": str(network.directory), "visible": [str(folder) for folder in network.visible]}
    return {**asdict(network), **paths}
