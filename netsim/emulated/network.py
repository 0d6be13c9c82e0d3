"""Handle to a running emulated network: nodes, link checks, timeline; torn down on exit. In the runner process."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from netsim.emulated.agent_client import AgentClient, AgentListener, wait
from netsim.emulated.cleanup import sweep
from netsim.emulated.compile import compile_topology, duplicates_ever, sysctls
from netsim.emulated.gate import LinkReport
from netsim.emulated.link_check import LinkChecker, budget_of
from netsim.emulated.node.realtime import DELAY, PROBE
from netsim.emulated.node.requests import (
    CheckHealth,
    Counters,
    Echo,
    NameInterfaces,
    PollProgram,
    ReadCounters,
    ReadCrossBytes,
    ReadFacts,
    Shape,
    SignalProgram,
    StartProgram,
    WaitForProgram,
)
from netsim.emulated.owner import VARIABLE, Owner, make_runtime
from netsim.emulated.plan import Address, NodePlan
from netsim.emulated.substrates.base import Substrate
from netsim.emulated.substrates.capabilities import Capability, capabilities, container_engine
from netsim.emulated.substrates.launch import AgentSpec, NetworkRequest
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.emulated.timeline_player import TimelinePlayer
from netsim.errors import HostError, InputError, LinkError, LonghaulError
from netsim.timeline import Timeline, WorkerEvent
from netsim.topology import Topology

__all__ = ["Choice", "Counters", "LinkReport", "Network", "Node", "NodeProcess", "open_network", "resolve"]

_START_SECONDS = 60.0
PRIORITY = {"delay daemon": DELAY, "prober": PROBE}


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
    able = _capabilities_of_sites() if substrate == "compose" else capabilities()
    needed = ["htb", "u32", "ifb", "mirred"] + (["namespaces"] if substrate == "netns" else [])
    if engine == "auto":
        engine = "netem" if able["netem"].present else "nfqueue"
        reasons.append("netem: this kernel has it" if engine == "netem" else "nfqueue: this kernel has no netem")
    needed += ["netem"] if engine == "netem" else ["nfqueue", "iptables"]
    if missing := [able[name] for name in needed if not able[name].present]:
        named = "; ".join(f"{one.name}, for {one.enables} ({one.detail})" for one in missing)
        raise HostError(f"this host lacks {named}")
    return Choice(substrate, engine, "; ".join(reasons) or "asked for")


class NodeProcess:
    """A program that runs in a node. Its status is an exit code, or minus the signal that ended it."""

    def __init__(self, link: AgentClient, program: int) -> None:
        self._link, self._program = link, program
        self._status: int | None = None

    def poll(self) -> int | None:
        """The status, or None while it runs. A program whose node is gone was killed with it."""
        if self._status is None:
            self._settle(lambda: self._link.call(PollProgram(self._program)).status)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        if self._status is None:
            future = self._link.request(WaitForProgram(self._program))
            self._settle(lambda: future.result(timeout).status)
        assert self._status is not None
        return self._status

    def signal(self, number: int) -> None:
        """To the program and all that it started."""
        if not self._link.ended:
            self._link.call(SignalProgram(self._program, int(number)))

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _settle(self, status: Callable[[], int | None]) -> None:
        try:
            self._status = status()
        except LonghaulError:
            if not self._link.ended:
                raise
            self._status = -signal.SIGKILL


class Node:
    """One site's place in the network."""

    def __init__(self, link: AgentClient, plan: NodePlan, owner: Owner, directory: Path, user: int | None) -> None:
        self.user = user  # that its programs run as; None: this process's own
        self.site, self.wan_address, self.mgmt_address = plan.site, plan.address, plan.mgmt_address
        self._link, self._owner, self._directory = link, owner, directory

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> NodeProcess:
        """Starts a program without powers over the network; its output is appended to `log`."""
        marked = {**env, VARIABLE: str(self._owner)}
        request = StartProgram(tuple(argv), marked, str(log.absolute()), str(self._directory))
        return NodeProcess(self._link, self._link.call(request).program)

    def counters(self) -> Counters:
        """Since the node was made. Cross-traffic of a timeline is left out of what was sent."""
        counting, crossing = self._link.request(ReadCounters()), self._link.request(ReadCrossBytes())
        counted = wait([counting], 30)[0]
        sent = counted.tx_bytes - wait([crossing], 30)[0].bytes
        return Counters(sent, counted.rx_bytes, counted.tx_packets, counted.rx_packets)


class Network:
    """All nodes of a topology. Made by `open_network`."""

    def __init__(
        self,
        topology: Topology,
        choice: Choice,
        substrate: Substrate,
        links: list[AgentClient],
        plans: list[NodePlan],
        order: NetworkRequest,
        directory: Path,
        compile_state: Callable[[Topology], list[NodePlan]],
        seed: int,
    ) -> None:
        self.topology, self.substrate, self.engine, self.reason = (
            topology,
            choice.substrate,
            choice.engine,
            choice.reason,
        )
        self.nodes = [
            Node(link, plan, order.owner, directory, substrate.user(index))
            for index, (link, plan) in enumerate(zip(links, plans, strict=True))
        ]
        self._base, self._links, self._compile = substrate, links, compile_state
        by_site = {link.site: link for link in links}
        self._checker = LinkChecker(topology, by_site, {plan.site: plan for plan in plans}, seed)

    def check(self, short: bool) -> LinkReport:
        """Probes the links: every directed pair of up to eight sites, of more sites those that can differ.

        A pair outside tolerance is probed once more before it counts as failed.
        """
        return self._checker.check(budget_of(short), self.substrate, self.engine)

    def echo(self, source: str, target: str, *, count: int, interval: float = 0.02) -> list[tuple[float, float | None]]:
        """Echoes from one site to another: when each was sent (monotonic clock) and its round trip, seconds.

        None for what did not come back within a second after the last was sent.
        """
        link = next(link for link in self._links if link.site == source)
        address = next(node.wan_address for node in self.nodes if node.site == target)
        timeout = count * interval + 30
        return list(link.call(Echo((address,), count, interval, patience=1.0), timeout).echoes[0])

    def verify(self) -> None:
        """Raises LinkError if an agent or a delay daemon has ended, or if any shaping is not as it was set up."""
        if not self._base.alive():
            raise LinkError("the nodes of this network have ended")
        answers = wait([link.request(CheckHealth()) for link in self._links], 30)
        if found := [mismatch for answer in answers for mismatch in answer.mismatches]:
            raise LinkError("; ".join(found))

    @contextmanager
    def play(self, on_site_event: Callable[[WorkerEvent], None] | None = None) -> Iterator[TimelinePlayer]:
        """Plays the topology's timeline from now on, in the background; leaving the context ends it.

        on_site_event: called for each incident of a site, after its programs were paused, resumed or killed; restarting
        them is up to the caller. The links are afterwards what they were at the start.
        """
        links = {link.site: link for link in self._links}
        player = TimelinePlayer(
            self.topology, links, lambda state: {plan.site: plan for plan in self._compile(state)}, on_site_event
        )
        player.start()
        try:
            yield player
        finally:
            player.stop()

    def environment(self) -> dict[str, Any]:
        """What the links are made of, for the record."""
        facts = wait([link.request(ReadFacts()) for link in self._links], 30)
        return {
            "substrate": self.substrate,
            "engine": self.engine,
            "reason": self.reason,
            **self._base.facts(),
            "nodes": {node.site: fact.to_json() for node, fact in zip(self.nodes, facts, strict=True)},
        }


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
) -> Iterator[Network]:
    """Brings the topology up; leaving the context removes all of it.

    directory: for the agents' complaints; programs start in it. read_only, writable: what programs may see besides it,
    under the same paths, where the substrate does not share the file system. cpus, memory (bytes): limits per node,
    where the substrate has them. seed: of loss, jitter and the choice of pairs to probe.
    Raises HostError for what the host lacks, LinkError if a link cannot be set up as asked.
    """
    choice = resolve(substrate, engine)
    sweep(containers=choice.substrate == "docker")
    directory = directory.absolute()
    owner = Owner.this()
    names = [site.name for site in topology.sites]
    with ExitStack() as stack:
        runtime = make_runtime(run_id, owner)
        stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        listener = AgentListener(runtime / "control", names)
        stack.callback(listener.close)
        nodes = [
            AgentSpec(index, name, runtime / "control", listener.token, directory / f"agent-{name}.log")
            for index, name in enumerate(names)
        ]
        duplicates = duplicates_ever(topology)
        order = NetworkRequest(
            run_id=run_id,
            owner=owner,
            runtime=runtime,
            nodes=nodes,
            mtu=topology.transport.mtu,
            sysctls=sysctls(topology.transport, choice.engine),
            read_only=tuple(read_only),
            writable=tuple(writable),
            raw_sockets=duplicates and choice.engine == "nfqueue",
            cpus=cpus,
            memory=memory,
        )
        base = _substrate(choice.substrate)
        stack.callback(base.close)
        base.start(order)
        links = listener.accept_all(_START_SECONDS, base.alive)
        for link in links:
            stack.callback(link.close)
        addresses = _addresses(base, links)

        def compile_state(state: Topology) -> list[NodePlan]:
            return compile_topology(state, addresses, choice.engine, seed, duplicates=duplicates)

        plans = compile_state(replace(topology, timeline=Timeline()))
        _shape(plans, base, links)
        yield Network(topology, choice, base, links, plans, order, directory, compile_state, seed)


def _capabilities_of_sites() -> Mapping[str, Capability]:
    from netsim.emulated.substrates.compose_nodes import capabilities_of_sites

    return capabilities_of_sites()


def _substrate(name: str) -> Substrate:
    if name == "netns":
        return NetnsNodes()
    if name == "compose":
        from netsim.emulated.substrates.compose_nodes import ComposeNodes

        return ComposeNodes()
    from netsim.emulated.substrates.docker_nodes import DockerNodes

    return DockerNodes()


def _addresses(base: Substrate, links: list[AgentClient]) -> dict[str, Address]:
    addresses = {link.site: base.address(index) for index, link in enumerate(links)}
    if not base.pins_sysctls:
        ends = {site: NameInterfaces(address.wan, address.mgmt) for site, address in addresses.items()}
        wait([link.request(ends[link.site]) for link in links], _START_SECONDS)
    return addresses


def _shape(plans: list[NodePlan], base: Substrate, links: list[AgentClient]) -> None:
    requests = [link.request(Shape(plan, base.pins_sysctls)) for link, plan in zip(links, plans, strict=True)]
    answers = wait(requests, _START_SECONDS)
    if found := [mismatch for answer in answers for mismatch in answer.mismatches]:
        raise LinkError("; ".join(found))
    for index, answer in enumerate(answers):
        for helper in answer.helpers:
            if not helper.priority.startswith("fifo"):
                base.set_realtime(index, helper.pid, PRIORITY[helper.name])
