"""How the members of a torch.distributed group find each other: by its store, which every member can reach."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from typing import Any

from harness.transport.mesh import listen
from harness.transport.wan_exchange import WanExchange
from netsim.collectives import INCAST, select_algorithm, streams_per_pair
from netsim.errors import HostError
from netsim.topology import Topology, topology_from
from netsim.traffic import Algorithm, Transfer

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_RING_BYTES = 1 << 20  # per member, from which a ring among many pays without anything being known of the network


@dataclass(frozen=True)
class GroupMember:
    """Where a member listens. site: of the emulated network, if it is in one."""

    address: str
    port: int
    site: str
    token: str


def connect_group(store: Any, rank: int, world: int, timeout: timedelta) -> WanExchange:
    """Connects the members of a group. store: the group's own part of torch's store.

    The interface is that of LONGHAUL_IFNAME or GLOO_SOCKET_IFNAME, else the one that leads to MASTER_ADDR. Algorithms
    and numbers of connections suit the topology in LONGHAUL_TOPOLOGY, which `longhaul wan torchrun` sets; without one,
    a pair has LONGHAUL_STREAMS connections (default 1). Raises PeerError and HostError.
    """
    address = own_address()
    listener = listen(address, 0)
    token = secrets.token_hex(16)
    me = {"address": address, "port": listener.getsockname()[1], "site": os.environ.get("LONGHAUL_SITE", "")}
    store.set(f"longhaul/{rank}", json.dumps({**me, "token": token}))
    keys = [f"longhaul/{peer}" for peer in range(world)]
    store.wait(keys, timeout)
    members = [GroupMember(**json.loads(entry)) for entry in store.multi_get(keys)]
    streams, algorithm = _settings([member.site for member in members], rank)
    return WanExchange.connect(
        rank,
        world,
        [member.address for member in members],
        [member.port for member in members],
        members[0].token,
        streams,
        algorithm,
        timeout.total_seconds(),
        listener=listener,
    )


def own_address() -> str:
    """The IPv4 address by which the others reach this process. Raises HostError for an interface without one."""
    name = os.environ.get("LONGHAUL_IFNAME") or os.environ.get("GLOO_SOCKET_IFNAME", "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        if name:
            try:
                found = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError as error:
                raise HostError(f"interface {name} has no IPv4 address: {error.strerror}") from None
            return socket.inet_ntoa(found[20:24])
        try:
            any_socket.connect((os.environ.get("MASTER_ADDR", "127.0.0.1"), 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = any_socket.getsockname()[0]
        return address


def _settings(sites: Sequence[str], rank: int) -> tuple[Callable[[int], int], Callable[[Transfer], Algorithm]]:
    """Connections per peer, and the algorithm of an all-reduce."""
    topology = _topology(sites)
    if topology is not None:
        known = topology

        def streams(peer: int) -> int:
            there = sites[peer]
            return streams_per_pair(known, sites[rank], there) if there != sites[rank] else 1

        return streams, lambda transfer: select_algorithm(known, transfer)
    count = int(os.environ.get("LONGHAUL_STREAMS", "1"))

    def algorithm(transfer: Transfer) -> Algorithm:
        many = len(transfer.members) - 1 > INCAST and transfer.size >= _RING_BYTES * len(transfer.members)
        return Algorithm.RING if many else Algorithm.DIRECT

    return lambda peer: count, algorithm


def _topology(sites: Sequence[str]) -> Topology | None:
    """The emulated network, its sites in the order of the group's ranks; None if there is none, or no such order."""
    text = os.environ.get("LONGHAUL_TOPOLOGY")
    if not text or not all(sites):
        return None
    whole = topology_from(json.loads(text), "LONGHAUL_TOPOLOGY")
    runs = [(name, len(list(ranks))) for name, ranks in groupby(sites)]
    if len({name for name, _ in runs}) < len(runs):
        return None
    return replace(whole, sites=tuple(replace(whole.site(name), workers=count) for name, count in runs))
