"""A topology as resources on which collectives are carried out, message by message.

Ranks are counted site by site. Workers of one site share its access link and reach each other without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy

from netsim.simulated.flows import FREE, Floats, FlowNetwork, Ints
from netsim.simulated.link_model import LinkModel
from netsim.simulated.messages import Messages, messages_for
from netsim.topology import Topology
from netsim.traffic import Algorithm, Collective, Transfer


def site_of_rank(topology: Topology) -> tuple[str, ...]:
    """The site of each worker."""
    return tuple(site.name for site in topology.site_of_rank)


class Links:
    """Resources of a topology: indices, capacities in bytes/s, delays and windows by pair of sites.

    capped: whether every pair gets a resource of its own, because a timeline may cap or sever it later.
    """

    def __init__(self, topology: Topology, link_model: LinkModel, capped: bool = False) -> None:
        self.link_model = link_model
        names = [site.name for site in topology.sites]
        self.place = {name: index for index, name in enumerate(names)}
        self.site_of = np.array([self.place[name] for name in site_of_rank(topology)], dtype=np.int64)
        n = len(names)
        self.up, self.down = 1 + np.arange(n), 1 + n + np.arange(n)
        self.pair = np.full((n, n), FREE, dtype=np.int64)
        own = [(self.place[link.source], self.place[link.target]) for link in topology.links if capped or link.rate]
        for index, (i, j) in enumerate(own):
            self.pair[i, j] = 1 + 2 * n + index
        self.capacity: Floats = np.full(2 + 2 * n + len(own), np.inf)
        self.host = len(self.capacity) - 1
        if link_model.host_bandwidth is not None:
            self.capacity[self.host] = link_model.host_bandwidth
        self.delay, self.rtt = np.zeros((n, n)), np.zeros((n, n))
        self.cap: Floats = np.full((n, n), np.inf)
        self.window: Floats = np.full((n, n), np.inf)  # bytes in flight that connections have grown to
        self.become(topology)
        if link_model.cold_start:
            for a, b in topology.pairs():
                self.window[self.place[a.name], self.place[b.name]] = link_model.initial_window(
                    topology, a.name, b.name
                )

    def become(self, topology: Topology, taken: Sequence[tuple[str, str, float]] = ()) -> None:
        """Take the rates, delays and losses of `topology`; `taken`: from, to and line rate that others use up."""
        link_model, place = self.link_model, self.place

        def goodput(rate: float) -> float:
            return link_model.goodput(max(rate, 0.0), topology.transport)

        for site in topology.sites:
            i = place[site.name]
            self.capacity[self.up[i]] = goodput(site.up - sum(rate for a, _, rate in taken if a == site.name))
            self.capacity[self.down[i]] = goodput(site.down - sum(rate for _, b, rate in taken if b == site.name))
        for link in topology.links:
            i, j = place[link.source], place[link.target]
            self.delay[i, j] = link.delay
            self.rtt[i, j] = topology.rtt(link.source, link.target)
            severed = link.mean_loss == 1
            self.cap[i, j] = np.inf if severed else link_model.window_cap(topology, link.source, link.target)
            if self.pair[i, j] != FREE:
                others = sum(rate for a, b, rate in taken if (a, b) == (link.source, link.target))
                rate = np.inf if link.rate is None else goodput(link.rate - others)
                self.capacity[self.pair[i, j]] = 0.0 if severed else rate

    def state(self) -> tuple[bytes, bytes, bytes]:
        """What a round can change for the next one; equal states behave equally."""
        return self.capacity.tobytes(), self.delay.tobytes(), self.window.tobytes()

    def limits_of(self, paths: Ints) -> Floats:
        """The same for flows, by the resources that they cross."""
        return self.limits(paths[:, 0] - 1, paths[:, 2] - 1 - len(self.place))

    def limits(self, sources: Ints, targets: Ints) -> Floats:
        """Bytes per second that each pair of sites may have at most: buffers, loss, and the window while it grows."""
        cap: Floats = self.cap[sources, targets]
        if not self.link_model.cold_start:
            return cap
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = self.window[sources, targets] / self.rtt[sources, targets]
        return np.minimum(cap, np.where(self.rtt[sources, targets] > 0, grown, np.inf))


class Fabric:
    """Carries out transfers in a simulation; counts the bytes that each rank sends.

    Between two ranks messages leave in the order in which they became ready, whichever transfer they belong to, as in
    the executor, which has one queue per peer (`harness.transport.peers`). Pairs share links max-min fairly.
    """

    def __init__(self, env: simpy.Environment, links: Links, payload: Floats) -> None:
        self.env, self.links, self.payload = env, links, payload
        self._busy = np.zeros(len(payload) ** 2, dtype=bool)  # by pair of ranks
        self._queues: dict[int, deque[tuple[ActiveTransfer, int]]] = {}
        self.flows = FlowNetwork(env, links.capacity, 3 if links.link_model.host_bandwidth is None else 4)
        self._growing: set[int] = set()  # pairs of sites whose window is about to double
        self._due: dict[float, list[int]] = {}

    def carry(self, transfer: Transfer, algorithm: Algorithm) -> ActiveTransfer:
        """The transfer, waiting for its members to be ready."""
        return ActiveTransfer(self, transfer, algorithm)

    def enqueue(self, transfer: ActiveTransfer, messages: Ints) -> None:
        """Messages that are ready: each leaves when those before it on its pair have left."""
        messages = np.sort(messages)
        pairs, first = np.unique(transfer.pairs[messages], return_index=True)
        leaving = first[~self._busy[pairs]]
        self._busy[pairs] = True
        waiting = np.ones(len(messages), dtype=bool)
        waiting[leaving] = False
        for message, pair in zip(messages[waiting].tolist(), transfer.pairs[messages[waiting]].tolist(), strict=True):
            self._queues.setdefault(pair, deque()).append((transfer, message))
        if leaving.size:
            transfer.leave(messages[leaving])

    def departed(self, pairs: Ints) -> None:
        """The message under way on each of these pairs has left: the next one follows."""
        following: dict[ActiveTransfer, list[int]] = {}
        for pair in pairs.tolist():
            if queue := self._queues.get(pair):
                transfer, message = queue.popleft()
                following.setdefault(transfer, []).append(message)
            else:
                self._busy[pair] = False
        for transfer, messages in following.items():
            transfer.leave(np.array(messages))

    def send(
        self, sources: Ints, targets: Ints, sizes: Floats, drained: Callable[[Ints], None], messages: Ints
    ) -> None:
        """Begin flows between sites; `drained` hears of each message when its last byte has left."""
        links = self.links
        crossed = [links.up[sources], links.pair[sources, targets], links.down[targets]]
        if links.link_model.host_bandwidth is not None:
            crossed.append(np.full(len(sources), links.host))
        paths = np.stack(crossed, axis=1)
        self.flows.start(paths, sizes, links.limits(sources, targets), drained, messages)
        if links.link_model.cold_start:
            self._watch(np.unique(sources * len(links.place) + targets))

    def _watch(self, pairs: Ints) -> None:
        """Slow start: the window of every pair in use doubles each round trip until its links are the limit."""
        links, n = self.links, len(self.links.place)
        i, j = pairs // n, pairs % n
        full = np.minimum(links.capacity[links.up[i]], links.capacity[links.down[j]]) * links.rtt[i, j]
        small = links.window[i, j] < full
        for pair, rtt in zip(pairs[small].tolist(), links.rtt[i, j][small].tolist(), strict=True):
            if pair not in self._growing:
                self._growing.add(pair)
                due = self._due.setdefault(self.env.now + rtt, [])
                if not due:
                    self.env.process(self._grow(rtt, self.env.now + rtt))
                due.append(pair)

    def _grow(self, rtt: float, due: float) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(rtt)
        links, n = self.links, len(self.links.place)
        pairs = np.array(self._due.pop(due), dtype=np.int64)
        self._growing.difference_update(pairs.tolist())
        links.window[pairs // n, pairs % n] *= 2
        if self.flows.active:
            self.flows.change(links.capacity, lambda paths, _: links.limits_of(paths))
            used = np.unique((self.flows.paths[:, 0] - 1) * n + self.flows.paths[:, 2] - 1 - n)
            self._watch(np.intersect1d(pairs, used))


class ActiveTransfer:
    """One transfer under way. `ready(rank)` when a member joins; `done[rank]` happens when it has its result."""

    def __init__(self, fabric: Fabric, transfer: Transfer, algorithm: Algorithm) -> None:
        self.fabric, self.transfer = fabric, transfer
        links = fabric.links
        shares = len(transfer.members) if _spread(transfer, algorithm) else 1
        pieces = 1
        if transfer.collective is Collective.ALL_REDUCE:
            pieces = links.link_model.chunking.of(transfer.size / shares, len(transfer.members))
        self.messages: Messages = messages_for(transfer, algorithm, pieces)
        self.done = {rank: fabric.env.event() for rank in transfer.members}
        self._place = {rank: place for place, rank in enumerate(transfer.members)}
        self._ranks = np.array(transfer.members)
        sites = links.site_of[self._ranks]
        self._sources, self._targets = sites[self.messages.source], sites[self.messages.target]
        own = self.messages.source == self.messages.target
        self._delay = links.delay[self._sources, self._targets] + links.link_model.message_seconds
        self._delay[own] = 0.0
        self._free = own | (self._sources == self._targets) | (self.messages.size == 0)
        self._needs = self.messages.needs.copy()
        # A member is done when it has its result and has handed everything to the network.
        self._unsent = np.bincount(self.messages.source[~own], minlength=self.messages.members)
        self._has_result = np.zeros(self.messages.members, dtype=bool)
        self.pairs = self._ranks[self.messages.source] * len(links.site_of) + self._ranks[self.messages.target]

    def ready(self, rank: int) -> None:
        """The member has its numbers."""
        self._happened(np.array([self._place[rank]]))

    def _happened(self, nodes: Ints) -> None:
        """Nodes that have all they need: members that are done, and messages that may leave."""
        members = self.messages.members
        results = nodes[(nodes >= members) & (nodes < 2 * members)] - members
        self._has_result[results] = True
        self._settle(results)
        by_node, begins = self.messages.starts
        found = [by_node[begins[node] : begins[node + 1]] for node in nodes.tolist()]
        if found:
            self._release(np.concatenate(found))

    def _settle(self, places: Ints) -> None:
        for place in places[self._has_result[places] & (self._unsent[places] == 0)].tolist():
            self.done[self.transfer.members[place]].succeed()

    def _release(self, messages: Ints) -> None:
        """Messages whose node has happened."""
        free = self._free[messages]
        if not free.all():
            self.fabric.enqueue(self, messages[~free])
        if free.any():
            self._left(messages[free])

    def leave(self, messages: Ints) -> None:
        """Send messages whose turn has come, each on another pair."""
        self.fabric.send(
            self._sources[messages],
            self._targets[messages],
            self.messages.size[messages],
            self._drained,
            messages,
        )
        np.add.at(self.fabric.payload, self._ranks[self.messages.source[messages]], self.messages.size[messages])

    def _drained(self, messages: Ints) -> None:
        self.fabric.departed(self.pairs[messages])
        self._left(messages)

    def _left(self, messages: Ints) -> None:
        """The last byte has left, and after the delay it has arrived."""
        away = messages[self.messages.source[messages] != self.messages.target[messages]]
        if away.size:
            sources = self.messages.source[away]
            np.subtract.at(self._unsent, sources, 1)
            self._settle(np.unique(sources))
        delays = self._delay[messages]
        for delay in np.unique(delays).tolist():
            arriving = messages[delays == delay]
            if delay == 0:
                self._arrived(arriving)
            else:
                self.fabric.env.process(self._arrive(arriving, delay))

    def _arrive(self, messages: Ints, delay: float) -> Generator[simpy.Event, Any, None]:
        yield self.fabric.env.timeout(delay)
        self._arrived(messages)

    def _arrived(self, messages: Ints) -> None:
        nodes = self.messages.into[messages]
        np.subtract.at(self._needs, nodes, 1)
        complete = np.unique(nodes)
        complete = complete[self._needs[complete] == 0]
        if complete.size:
            self._happened(complete)


def _spread(transfer: Transfer, algorithm: Algorithm) -> bool:
    return transfer.collective is Collective.ALL_REDUCE and algorithm is not Algorithm.PS
