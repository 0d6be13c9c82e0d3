"""Brings an emulated network up and takes it down. In the runner process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netsim.emulated.agent_client import AgentListener
from netsim.emulated.cleanup import sweep
from netsim.emulated.compile import (
    CORE_NODE,
    FORWARDING,
    duplicates_ever,
    marks_ever,
    node_names,
    sysctls,
)
from netsim.emulated.gate import LinkReport
from netsim.emulated.node.requests import Counters
from netsim.emulated.nodes import Node, NodeProcess
from netsim.emulated.owner import Owner, make_runtime
from netsim.emulated.running_network import AGENT_START_SECONDS, VERIFY_SECONDS, Network, shaped_network
from netsim.emulated.substrates.choice import Choice, resolve, substrate_for
from netsim.emulated.substrates.launch import AgentSpec, NetworkRequest
from netsim.topology import Topology

__all__ = [
    "AGENT_START_SECONDS",
    "VERIFY_SECONDS",
    "Choice",
    "Counters",
    "LinkReport",
    "Network",
    "Node",
    "NodeProcess",
    "open_network",
    "resolve",
]


@contextmanager
def open_network(
    topology: Topology,
    *,
    run_id: str,
    directory: Path,
    substrate: str = "auto",
    engine: str = "auto",
    read_only: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    cpus: float | None = None,
    memory: int | None = None,
    seed: int = 0,
    raw_sockets: bool = False,
    gpus: Sequence[str] = (),
    confined: bool = False,
) -> Iterator[Network]:
    """Brings the topology up; leaving the context removes all of it.

    directory: for the agents' complaints; programs start in it. read_only, writable: what programs may see besides it,
    under the same paths, where the substrate does not share the file system. cpus, memory (bytes): limits per node,
    where the substrate has them. seed: of loss, jitter and the choice of pairs to probe. raw_sockets: whether
    programs may use them, and packets may be captured. gpus: that programs may use, as the host numbers them.
    confined: programs are not trusted; on network namespaces, too, they get a user, a root and processes of their own.
    Raises HostError for what the host lacks, LinkError if a link cannot be set up as asked.
    """
    choice, base = substrate_for(topology, substrate, engine)
    sweep(containers=choice.substrate == "docker")
    directory = directory.absolute()
    owner = Owner.this()
    names, duplicates = node_names(topology), duplicates_ever(topology)
    node_sysctls = sysctls(topology.transport, choice.engine, ecn=marks_ever(topology))
    with ExitStack() as stack:
        runtime = make_runtime(run_id, owner)
        stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        listener = AgentListener(runtime / "control", names)
        stack.callback(listener.close)
        nodes = [
            AgentSpec(
                index,
                name,
                runtime / "control",
                listener.token,
                directory / f"agent-{name}.log",
                {**FORWARDING, **sysctls(topology.transport, "core")} if name == CORE_NODE else {},
            )
            for index, name in enumerate(names)
        ]
        order = NetworkRequest(
            run_id=run_id,
            owner=owner,
            runtime=runtime,
            nodes=nodes,
            mtu=topology.transport.mtu,
            sysctls=node_sysctls,
            read_only=tuple(read_only),
            writable=tuple(writable),
            raw_sockets=raw_sockets or (duplicates and choice.engine == "nfqueue"),
            gpus=tuple(gpus),
            program_raw_sockets=raw_sockets,
            cpus=cpus,
            memory=memory,
            confined=confined,
        )
        stack.callback(base.close)
        base.start(order)
        links = listener.accept_all(AGENT_START_SECONDS, base.alive)
        for link in links:
            stack.callback(link.close)
        yield shaped_network(topology, choice, base, links, order, directory, duplicates, seed)
