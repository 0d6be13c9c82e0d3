"""Networks for the tests, and the means to look behind them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netsim.emulated.network import resolve
from netsim.emulated.owner import VARIABLE
from netsim.errors import HostError
from netsim.topology import Topology, topology_from

PAIR: dict[str, Any] = {
    "name": "pair",
    "defaults": {"up": "40 Mbit", "down": "40 Mbit", "delay": "15 ms"},
    "transport": {"congestion_control": "reno"},
    "sites": {"a": {}, "b": {}},
}


def pair(**changes: Any) -> Topology:
    """Two sites; `changes` replace parts of the document."""
    return topology_from({**PAIR, **changes}, "test")


def need(substrate: str, engine: str = "nfqueue") -> None:
    """Skips the test where this host cannot do it, and says why."""
    try:
        resolve(substrate, engine)
    except HostError as error:
        pytest.skip(str(error))


def processes_of(owner: str) -> Iterator[int]:
    """Every process of this host that carries the owner's mark."""
    mark = f"{VARIABLE}={owner}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
