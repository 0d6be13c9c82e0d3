"""Members of an exchange over loopback: threads of this process, each with an address of its own in 127/8."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.transport.wan_exchange import WanExchange
from tests.threads import together

FIRST_PORT, PORTS = 20000, 12000  # below those that a kernel gives to outgoing connections

_ports = itertools.count(os.getpid() * 499)  # far from those of a process that started a moment earlier


def addresses(world: int) -> list[str]:
    return [f"127.0.1.{rank + 1}" for rank in range(world)]


def free_port() -> int:
    """A port that no address of this host has in use."""
    for number in _ports:
        port = FIRST_PORT + number % PORTS
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise AssertionError("the count has no end")


def connect_all(world: int, ranks: Sequence[int] | None = None, **options: Any) -> list[WanExchange]:
    """Connected exchanges of `ranks` (all `world` unless given)."""
    port = options.pop("port", None) or free_port()
    members = tuple(range(world)) if ranks is None else tuple(ranks)
    options = {"token": "run/0", "timeout": 5.0, "streams": 2, "members": members, **options}
    return together(members, lambda rank: WanExchange.connect(rank, world, addresses(world), port, **options))


def close_all(exchanges: Sequence[WanExchange]) -> None:
    together(range(len(exchanges)), lambda index: exchanges[index].close())
