"""`longhaul doctor`: what this host can do, and what each missing piece would enable."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from netsim.emulated.substrates.capabilities import capabilities, container_engine
from netsim.errors import HostError


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON document and nothing else.")) -> None:
    """What this host can do. Exit code 1 if it can bring up no network at all."""
    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found, Console())
    if not found["usable"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Everything that `doctor` prints, as plain data."""
    from netsim.emulated.network import resolve

    able = capabilities()
    version = container_engine()
    choices = {}
    for substrate in ("docker", "netns"):
        for engine in ("netem", "nfqueue"):
            try:
                resolve(substrate, engine)
                choices[f"{substrate} + {engine}"] = ""
            except HostError as error:
                choices[f"{substrate} + {engine}"] = str(error)
    try:
        chosen = asdict(resolve("auto", "auto"))
    except HostError as error:
        chosen = {"reason": str(error)}
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "root": os.geteuid() == 0,
        "python": platform.python_version(),
        "docker": version or None,
        "congestion_control": _setting("net.ipv4.tcp_congestion_control"),
        "congestion_control_allowed": _setting("net.ipv4.tcp_allowed_congestion_control"),
        "capabilities": {
            name: {"present": one.present, "enables": one.enables, "detail": one.detail} for name, one in able.items()
        },
        "tools": {name: shutil.which(name) for name in ("ip", "tc", "iptables-restore", "qemu-system-x86_64")},
        "networks": {name: {"possible": not why, "why_not": why} for name, why in choices.items()},
        "auto": chosen,
        "usable": any(not why for why in choices.values()),
    }


def _setting(key: str) -> str | None:
    path = Path("/proc/sys", *key.split("."))
    return path.read_text().strip() if path.exists() else None


def _print(found: dict[str, Any], console: Console) -> None:
    who = "root" if found["root"] else "an ordinary user"
    console.print(f"Linux {found['kernel']} ({found['machine']}), {found['cores']} cores, as {who}", highlight=False)
    console.print(f"Docker engine: {found['docker'] or 'none answers'}", highlight=False)
    console.print(f"TCP: {found['congestion_control']}; nodes pin that of their topology by route", highlight=False)
    table = Table("kernel", "", "enables", "why it is missing")
    for name, one in found["capabilities"].items():
        table.add_row(name, _mark(one["present"]), one["enables"], one["detail"])
    console.print(table)
    networks = Table("substrate + engine", "", "why not")
    for name, one in found["networks"].items():
        networks.add_row(name, _mark(one["possible"]), one["why_not"])
    console.print(networks)
    auto = found["auto"]
    chosen = f"{auto['substrate']} + {auto['engine']}: " if "engine" in auto else ""
    console.print(f"auto: {chosen}{auto['reason']}", highlight=False)


def _mark(present: bool) -> str:
    return "[green]yes[/green]" if present else "[red]no[/red]"
