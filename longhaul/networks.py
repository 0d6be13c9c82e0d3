"""Emulated networks from Python."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netsim.emulated import network
from netsim.emulated.held.client import HeldNetwork
from netsim.emulated.network import Network
from netsim.topology import Topology, find_topology
from netsim.topology import load_topology as _load

Source = str | os.PathLike[str]
_AT = re.compile(r"(?<![\w.@-])@([a-z0-9][a-z0-9-]*)")


def load_topology(topology: Source) -> Topology:
    """The network in a file, or the one of that name in the library, with everything in it checked.

    Args:
        topology: a path to a YAML, GML, GraphML or CSV file (docs/topologies.md), or a name that
            `longhaul list topologies` shows.

    Returns:
        Sites and every directed link between them; rates in bit/s, delays in seconds, shares from 0 to 1.

    Raises:
        InputError: the file or the name does not exist, or something in the file is wrong; the message names the line.

    Example:
        >>> network = longhaul.load_topology("transatlantic")
        >>> network.rtt("virginia", "ohio"), network.rate("virginia", "ohio")  # seconds, bit/s
        (0.012, 100000000.0)
    """
    return _load(find_topology(os.fspath(topology)))


@contextmanager
def open_network(
    topology: Topology | Source,
    directory: Source | None = None,
    *,
    substrate: str = "auto",
    engine: str = "auto",
    seed: int = 0,
) -> Iterator[Network]:
    """Bring a network up on this host, one node per site; leaving the context removes all of it.

    Args:
        topology: a loaded topology, or what `load_topology` takes.
        directory: for the logs of the nodes, and where programs in them start; by default a temporary one.
        substrate: `netns`, `docker`, `compose` or `auto`.
        engine: `nfqueue`, `netem` or `auto`.
        seed: of loss and jitter.

    Yields:
        The running network: `nodes`, `check(short)`, which probes the links, `echo(source, target, count=...)` in
        seconds, `change({"between": ["a", "b"], "delay": "80 ms"})`, `traffic()`, which counts what passed every queue,
        and `play()`, which plays the timeline. A node has `site`, `wan_address`, `run(argv)`, which returns what a
        program printed, `start(argv, env, log)` for one that goes on, and `capture(file)`.

    Raises:
        InputError: the topology is wrong.
        HostError: this host lacks what the substrate or the engine needs; the message names it.
        LinkError: a link cannot be set up as the topology has it.

    Example:
        >>> with longhaul.open_network("transatlantic") as network:  # doctest: +SKIP
        ...     print(network.check(short=True).passed)
    """
    loaded = topology if isinstance(topology, Topology) else load_topology(topology)
    with ExitStack() as stack:
        if directory is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="longhaul-network-"))
        yield stack.enter_context(
            network.open_network(
                loaded,
                run_id="python",
                directory=Path(directory),
                substrate=substrate,
                engine=engine,
                seed=seed,
                raw_sockets=True,
            )
        )


def program_environment(network: HeldNetwork, site: str) -> dict[str, str]:
    """The variables of a program at a site of an open network: ours, and where it is.

    In a container, where the program is another user without a home, HOME is its own /tmp.
    """
    names = [one.site for one in network.sites]
    away = {"HOME": "/tmp", "USER": "longhaul", "LOGNAME": "longhaul"} if network.substrate == "docker" else {}
    return {
        **os.environ,
        **away,
        "LONGHAUL_NETWORK": network.name,
        "LONGHAUL_SITE": site,
        "LONGHAUL_RANK": str(names.index(site)),
        "LONGHAUL_SITES": ",".join(names),
        "LONGHAUL_ADDRESSES": ",".join(one.wan for one in network.sites),
    }


def site_addresses(network: HeldNetwork, words: Sequence[str]) -> list[str]:
    """The words with the address of a site on wan0 in the place of each `@SITE`; other words with an @ stay."""
    addresses = {site.site: site.wan for site in network.sites}
    return [_AT.sub(lambda match: addresses.get(match[1], match[0]), word) for word in words]
