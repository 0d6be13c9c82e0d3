"""Emulated networks from Python."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netsim.emulated import network
from netsim.emulated.network import Network
from netsim.topology import Topology, find_topology
from netsim.topology import load_topology as _load

Source = str | os.PathLike[str]


def load_topology(topology: Source) -> Topology:
    """The network in a file, or the one of that name in the library, with everything in it checked.

    Args:
        topology: a path to a YAML, GML or GraphML file (docs/topologies.md), or a name that `longhaul list topologies`
            shows.

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
        The running network: `nodes` (each with `site`, `wan_address` and `start(argv, env, log)`), `check(short)`,
        which probes every directed pair, `echo(source, target, count=...)` in seconds, and `play()`, which plays the
        timeline.

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
                loaded, run_id="python", directory=Path(directory), substrate=substrate, engine=engine, seed=seed
            )
        )
