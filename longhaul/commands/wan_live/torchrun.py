"""`longhaul wan torchrun`: an unmodified torchrun script, trained across an emulated WAN."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.records.program_record import ProgramOutcome
from longhaul.commands.wan_live.lifetime import GPUS, JSON, MOUNT, WRITABLE, duration, existing
from longhaul.completion import topologies
from netsim.emulated.substrates.gpus import chosen_gpus
from netsim.errors import InputError
from netsim.topology import find_topology, read_topology, topology_from
from netsim.units import show_duration, show_size


def torchrun(
    topology: Annotated[
        str, typer.Argument(help="A topology file, or the name of one in the library.", autocompletion=topologies)
    ],
    command: Annotated[list[str], typer.Argument(metavar="-- SCRIPT ARGUMENTS...", help="As torchrun takes them.")],
    processes: Annotated[int, typer.Option("--nproc-per-node", min=1, max=64, help="Processes at each site.")] = 1,
    substrate: Annotated[str, typer.Option(help="auto, netns or docker.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, nfqueue or netem.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of loss and jitter.")] = 0,
    rendezvous: Annotated[str, typer.Option(help="Network of the rendezvous store: wan, or mgmt, unshaped.")] = "wan",
    timeout: Annotated[str, typer.Option(help="End everything after this time, like 10 min.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the record; by default a new one.")] = None,
    mount: Annotated[list[Path] | None, MOUNT] = None,
    writable: Annotated[list[Path] | None, WRITABLE] = None,
    gate: Annotated[bool, typer.Option(help="Check the links before and after.")] = True,
    gpus: Annotated[str, GPUS] = "auto",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a torchrun script with one node per site, and record it. Exit code 1 if it fails, or if links are off."""
    from harness.run.torchrun import TorchrunOrder, last_words, run_torchrun

    file = find_topology(topology)
    document = read_topology(file)
    loaded = topology_from(document, str(file))
    here = Path.cwd()
    if rendezvous not in ("wan", "mgmt"):
        raise InputError("--rendezvous", "", rendezvous, "wan or mgmt")
    scripts = [Path(word).absolute() for word in command if Path(word).suffix == ".py" and Path(word).is_file()]
    if not scripts and not {"-m", "--no-python"} & set(command):
        raise InputError("wan torchrun", "", " ".join(command), "-- SCRIPT ARGUMENTS, with a file that exists")
    visible = [
        *existing(mount, "--mount"),
        *(script.parent for script in scripts),
        *([here] if here != Path("/") else []),
    ]
    directory = (out or _new_folder(loaded.name, command)).absolute()
    if directory.exists():
        raise InputError("--out", "", str(directory), "a folder that does not exist yet")
    order = TorchrunOrder(
        topology=document,
        where=str(file),
        command=tuple(command),
        processes_per_site=processes,
        rendezvous=rendezvous,
        substrate=substrate,
        engine=engine,
        seed=seed,
        gate=gate,
        timeout=duration("--timeout", timeout) if timeout else None,
        read_only=tuple(dict.fromkeys(visible)),
        writable=tuple(existing(writable, "--writable")),
        gpus=chosen_gpus(gpus),
    )
    console = Console(stderr=as_json)
    outcome = run_torchrun(order, directory, lambda line: console.print(line, highlight=False))
    if as_json:
        print(json.dumps({"directory": str(directory), **outcome.model_dump()}, indent=2))
    else:
        _print(outcome, directory, console)
        for line in [] if outcome.valid else last_words(directory, [site.name for site in loaded.sites]):
            console.print(line, highlight=False, markup=False)
    if not outcome.valid:
        raise typer.Exit(1)


def _print(outcome: ProgramOutcome, directory: Path, console: Console) -> None:
    table = Table("link", "sent", "packets", "dropped", "lost")
    for link in outcome.links:
        counts = (str(link.packets), str(link.drops), str(link.lost))
        table.add_row(f"{link.source} -> {link.target}", show_size(link.bytes), *counts)
    console.print(table)
    state = "valid" if outcome.valid else f"invalid: {'; '.join(outcome.why_invalid)}"
    console.print(
        f"{state}; {show_duration(outcome.wall_seconds)}, {show_size(outcome.wan_bytes)} over the WAN; "
        f"record and logs: {directory}",
        highlight=False,
        soft_wrap=True,
    )


def _new_folder(topology: str, command: list[str]) -> Path:
    script = next((Path(word).stem for word in command if word.endswith(".py")), "program")
    return Path("runs") / "torchrun" / f"{topology}-{script}-{time.strftime('%Y%m%d-%H%M%S')}"
