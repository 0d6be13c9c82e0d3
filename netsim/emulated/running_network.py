"""Handle to a running emulated network: nodes, link checks, changes, timeline. In the runner process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from netsim.emulated.agent_client import ANSWER_SECONDS, AgentClient, wait
from netsim.emulated.compile import CORE_NODE, compile_topology
from netsim.emulated.gate import LinkReport
from netsim.emulated.link_check import LinkChecker, budget_of
from netsim.emulated.load_probe import Load, LoadFinding, probe_under_load
from netsim.emulated.node.realtime import DELAY, PROBE
from netsim.emulated.node.requests import CheckHealth, Echo, NameInterfaces, ReadFacts, ReadTraffic, Reshape, Shape
from netsim.emulated.nodes import Node
from netsim.emulated.plan import NodePlan
from netsim.emulated.substrates.base import Substrate
from netsim.emulated.substrates.choice import Choice
from netsim.emulated.substrates.launch import NetworkRequest
from netsim.emulated.timeline_player import TimelinePlayer
from netsim.emulated.traffic_counts import TrafficCounts, traffic_counts
from netsim.errors import LinkError
from netsim.framing import ETHERNET
from netsim.states import changed
from netsim.timeline import Timeline, WorkerEvent
from netsim.topology import Topology

AGENT_START_SECONDS = 60.0  # for agents to connect, and to shape their links
VERIFY_SECONDS = 2.0  # between two verifications of up to VERIFIED_AT_ONCE nodes, each of which starts eight programs
VERIFIED_AT_ONCE = 16
PRIORITY = {"delay daemon": DELAY, "prober": PROBE}


class Network:
    """All nodes of a topology. Made by `netsim.emulated.network.open_network`."""

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
            Node(link, plan, order.owner, directory, substrate.user(index), order.program_raw_sockets)
            for index, (link, plan) in enumerate(zip(links, plans, strict=True))
            if plan.site != CORE_NODE
        ]
        self._base, self._links, self._compile, self._seed = substrate, links, compile_state, seed
        self.state = replace(topology, timeline=Timeline())  # what holds now, but for what a timeline changes
        self._in_force = plans
        self._playing, self._directory, self._verified = False, directory, time.monotonic()

    def check(self, short: bool) -> LinkReport:
        """Probes the links: every directed pair of up to eight sites, of more sites those that can differ.

        A pair outside tolerance is probed once more before it counts as failed.
        """
        links = {link.site: link for link in self._links}
        checker = LinkChecker(self.state, links, {plan.site: plan for plan in self._in_force}, self._seed)
        return checker.check(budget_of(short), self.substrate, self.engine)

    def change(self, *changes: Mapping[str, Any]) -> None:
        """Changes links and access rates at once; what is not named stays.

        changes: as a timeline's `set` is written, like {"between": ["a", "b"], "delay": "80 ms"} or
        {"site": "a", "up": "10 Mbit"}. Raises InputError for a change that is none, and LinkError while a timeline is
        played, which says what the links are.
        """
        state = changed(self.state, changes, "change")
        if self._playing:
            raise LinkError("a timeline is being played on this network; its links change by that alone")
        plans = self._compile(state)
        pairs = zip(self._links, self._in_force, plans, strict=True)
        wait([link.request(Reshape(plan)) for link, before, plan in pairs if plan != before])
        self.state, self._in_force = state, plans

    def traffic(self) -> TrafficCounts:
        """What has passed every queue so far, what it dropped and holds now, and what loss took."""
        answers = wait([link.request(ReadTraffic()) for link in self._links])
        return traffic_counts({link.site: answer for link, answer in zip(self._links, answers, strict=True)})

    def full_packet_rates(self) -> dict[str, float]:
        """By site, the packets a second of full frames at its downlink's rate, where each is delayed by itself.

        Elsewhere the segments of a batch, up to 45, are one packet, and with the netem engine the kernel delays them.
        """
        return {
            plan.site: plan.down / (8 * (plan.mtu + ETHERNET))
            for plan in self._in_force
            if plan.engine == "nfqueue" and plan.segmented
        }

    def echo(self, source: str, target: str, *, count: int, interval: float = 0.02) -> list[tuple[float, float | None]]:
        """Echoes from one site to another: when each was sent (monotonic clock) and its round trip, seconds.

        None for what did not come back within a second after the last was sent.
        """
        link = next(link for link in self._links if link.site == source)
        address = next(node.wan_address for node in self.nodes if node.site == target)
        timeout = count * interval + 30
        return list(link.call(Echo((address,), count, interval, patience=1.0), timeout).echoes[0])

    def under_load(self, source: str, target: str, load: Load, seconds: float) -> LoadFinding:
        """Echoes from one site to another while `load` fills the way there (`load_probe.probe_under_load`)."""
        links = {link.site: link for link in self._links}
        plans = {plan.site: plan for plan in self._in_force}
        ends = [plans[source], plans[target]], [links[source], links[target]]
        log = self._directory / f"flood-{source}.log"
        return probe_under_load(load, *ends, self.state.rate(source, target), seconds, log)

    def verify(self) -> None:
        """Raises LinkError if an agent or a helper has ended or is stopped, or if shaping is not as it was set up."""
        if not self._base.alive():
            raise LinkError("the nodes of this network have ended or are stopped")
        answers = wait([link.request(CheckHealth()) for link in self._links], ANSWER_SECONDS * self._patience)
        self._verified = time.monotonic()
        if found := [mismatch for answer in answers for mismatch in answer.mismatches]:
            raise LinkError("; ".join(found))

    def verify_when_due(self) -> None:
        """`verify`, unless it was done a short time ago."""
        if time.monotonic() - self._verified > VERIFY_SECONDS * self._patience:
            self.verify()

    @property
    def _patience(self) -> float:
        """How many times as long many nodes have as few: the programs that they start wait for each other."""
        return max(1.0, len(self._links) / VERIFIED_AT_ONCE)

    @contextmanager
    def play(self, on_site_event: Callable[[WorkerEvent], None] | None = None) -> Iterator[TimelinePlayer]:
        """Plays the topology's timeline from now on, in the background; leaving the context ends it.

        on_site_event: called for each incident of a site, after its programs were paused, resumed or killed; restarting
        them is up to the caller. The links are afterwards what they were at the start.
        """
        links = {link.site: link for link in self._links}
        now = replace(self.state, timeline=self.topology.timeline)
        player = TimelinePlayer(
            now, links, lambda state: {plan.site: plan for plan in self._compile(state)}, on_site_event
        )
        player.start()
        self._playing = True
        try:
            yield player
        except BaseException:
            player.stop(restore=False)  # the network is about to be taken down; the reason must not be lost
            raise
        finally:
            self._playing = False
        player.stop()

    def environment(self) -> dict[str, Any]:
        """What the links are made of, for the record."""
        facts = wait([link.request(ReadFacts()) for link in self._links])
        return {
            "substrate": self.substrate,
            "engine": self.engine,
            "reason": self.reason,
            **self._base.facts(),
            "nodes": {link.site: fact.to_json() for link, fact in zip(self._links, facts, strict=True)},
        }


def shaped_network(
    topology: Topology,
    choice: Choice,
    substrate: Substrate,
    links: list[AgentClient],
    order: NetworkRequest,
    directory: Path,
    duplicates: bool,
    seed: int,
) -> Network:
    """Names the interfaces of all nodes and sets up every link as the topology has it before its timeline begins.

    duplicates: whether packets are ever duplicated, which takes a place in the path. Raises LinkError.
    """
    addresses = {link.site: substrate.address(index) for index, link in enumerate(links)}
    if not substrate.pins_sysctls:
        ends = {site: NameInterfaces(address.wan, address.mgmt) for site, address in addresses.items()}
        wait([link.request(ends[link.site]) for link in links], AGENT_START_SECONDS)

    def compile_state(state: Topology) -> list[NodePlan]:
        return compile_topology(state, addresses, choice.engine, seed, duplicates=duplicates)

    plans = compile_state(replace(topology, timeline=Timeline()))
    requests = [link.request(Shape(plan, substrate.pins_sysctls)) for link, plan in zip(links, plans, strict=True)]
    answers = wait(requests, AGENT_START_SECONDS)
    if found := [mismatch for answer in answers for mismatch in answer.mismatches]:
        raise LinkError("; ".join(found))
    for index, answer in enumerate(answers):
        for helper in answer.helpers:
            if not helper.priority.startswith("fifo"):
                substrate.set_realtime(index, helper.pid, PRIORITY[helper.name])
    return Network(topology, choice, substrate, links, plans, order, directory, compile_state, seed)
