"""Which substrate and engine this host can have. In the runner and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from netsim.emulated.compile import managed_ever
from netsim.emulated.substrates.base import Substrate
from netsim.emulated.substrates.capabilities import Capability, capabilities, container_engine
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.errors import HostError, InputError
from netsim.topology import Topology


@dataclass(frozen=True)
class Choice:
    """Substrate and engine for this host, and why."""

    substrate: str
    engine: str
    reason: str


@cache
def resolve(substrate: str = "auto", engine: str = "auto") -> Choice:
    """Docker if an engine answers, else netns; netem if the kernel has it, else nfqueue.

    compose is never picked by itself: its sites are up already, and only the runner beside them reaches them.
    Raises InputError for an unknown name and HostError for what this host cannot do.
    """
    if substrate not in ("auto", "netns", "docker", "compose"):
        raise InputError("--substrate", "", substrate, "auto, netns, docker or compose")
    if engine not in ("auto", "netem", "nfqueue"):
        raise InputError("--engine", "", engine, "auto, netem or nfqueue")
    reasons = []
    if substrate in ("auto", "docker"):
        version = container_engine()
        if not version and substrate == "docker":
            raise HostError("no Docker engine answers; start one (dockerd), or use the netns substrate")
        if substrate == "auto":
            reasons.append(f"docker: engine {version} answers" if version else "netns: no Docker engine answers")
        substrate = "docker" if version else "netns"
    able = able_of(substrate)
    needed = ["htb", "u32", "ifb", "mirred"] + (["namespaces"] if substrate == "netns" else [])
    if engine == "auto":
        engine = "netem" if able["netem"].present else "nfqueue"
        reasons.append("netem: this kernel has it" if engine == "netem" else "nfqueue: this kernel has no netem")
    needed += ["netem"] if engine == "netem" else ["nfqueue", "iptables"]
    if missing := [able[name] for name in needed if not able[name].present]:
        named = "; ".join(f"{one.name}, for {one.enables} ({one.detail})" for one in missing)
        raise HostError(f"this host lacks {named}")
    return Choice(substrate, engine, "; ".join(reasons) or "asked for")


def substrate_for(topology: Topology, substrate: str, engine: str) -> tuple[Choice, Substrate]:
    """The choice for a topology on this host, and the substrate, which has built nothing yet.

    Raises what `resolve` raises, and HostError for a queue of a kind that the kernel lacks.
    """
    choice = resolve(substrate, engine)
    if managed_ever(topology):
        require_queues(topology, able_of(choice.substrate))
    return choice, substrate_named(choice.substrate)


def require_queues(topology: Topology, able: Mapping[str, Capability]) -> None:
    """Raises HostError, which names the queue, where the kernel lacks a kind that the topology asks for."""
    for place, kind in topology.managed_queues():
        if not able[kind.kind].present:
            raise HostError(
                f"this kernel has no {kind.kind} (module sch_{kind.kind}), which the queue of {place} asks for: "
                f"{able[kind.kind].detail}; every kernel has droptail"
            )


def able_of(substrate: str) -> Mapping[str, Capability]:
    """What the kernel of a substrate's nodes can do."""
    return _capabilities_of_sites() if substrate == "compose" else capabilities()


def _capabilities_of_sites() -> Mapping[str, Capability]:
    from netsim.emulated.substrates.compose_nodes import capabilities_of_sites

    return capabilities_of_sites()


def substrate_named(name: str) -> Substrate:
    """One that has built nothing yet; `name` as `resolve` chose it."""
    if name == "netns":
        return NetnsNodes()
    if name == "compose":
        from netsim.emulated.substrates.compose_nodes import ComposeNodes

        return ComposeNodes()
    from netsim.emulated.substrates.docker_nodes import DockerNodes

    return DockerNodes()
