"""A topology as resources on which collectives are carried out, message by message.

Ranks are counted site by site. Workers of one site share its access link and reach each other without it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy

from netsim.emulated.jitter import close_delay, unrest
from netsim.framing import segment
from netsim.simulated.cold_windows import ColdWindows, standing
from netsim.simulated.fair_rates import FREE, Flags, Floats, Ints, Routes
from netsim.simulated.flows import FlowNetwork
from netsim.simulated.link_model import LinkModel
from netsim.simulated.lossy_connections import LossyConnections
from netsim.simulated.messages import Messages, messages_for
from netsim.simulated.send_buffers import SendBuffers
from netsim.topology import Topology
from netsim.traffic import Algorithm, Collective, Transfer


def site_of_rank(topology: Topology) -> tuple[str, ...]:
    """The site of each rank: in their order."""
    return tuple(site.name for site in topology.sites)


class Links:
    """Resources of a topology: indices, capacities in bytes/s, delays and windows by pair of sites.

    capped: whether every pair gets a resource of its own, because a timeline may cap or sever it later.
    """

    def __init__(self, topology: Topology, link_model: LinkModel, capped: bool = False) -> None:
        self.link_model, self.segment = link_model, segment(topology.transport.mtu)  # bytes of a packet's payload
        self._routes: Routes | None = None
        names = [site.name for site in topology.sites]
        self.place = {name: index for index, name in enumerate(names)}
        self.site_of = np.array([self.place[name] for name in site_of_rank(topology)], dtype=np.int64)
        n = len(names)
        self.up, self.down = 1 + np.arange(n), 1 + n + np.arange(n)
        self.pair = np.full((n, n), FREE, dtype=np.int64)
        own = [(self.place[link.source], self.place[link.target]) for link in topology.links if capped or link.rate]
        for index, (i, j) in enumerate(own):
            self.pair[i, j] = 1 + 2 * n + index
        self.capacity: Floats = np.full(2 + 2 * n + len(own) + len(topology.core), np.inf)
        most = max((len(topology.core_of(a.name, b.name)) for a, b in topology.pairs()), default=0)
        self.core = np.full((most, n, n), FREE, dtype=np.int64)  # what pairs share, as many as the longest path crosses
        self._first_core = 1 + 2 * n + len(own)
        place_of = {link.name: self._first_core + index for index, link in enumerate(topology.core)}
        for a, b in topology.pairs():
            for nth, link in enumerate(topology.core_of(a.name, b.name)):
                self.core[nth, self.place[a.name], self.place[b.name]] = place_of[link.name]
        self.host = len(self.capacity) - 1
        if link_model.host_bandwidth is not None:
            self.capacity[self.host] = link_model.host_bandwidth
        self.delay, self.rtt, self.unrest, self.loss = np.zeros((4, n, n))
        self.connections: LossyConnections | None = None  # of all pairs, once packets of any are lost
        self.cap: Floats = np.full((n, n), np.inf)
        self.windows = ColdWindows.unlimited(n)
        self.streams: Floats = np.ones((n, n))  # connections of a pair
        self.leaves_slow_start = topology.transport.congestion_control == "cubic"  # where it sees a queue
        self.room: Floats = np.zeros((n, n))  # bytes that kernels hold beyond those
        self.become(topology)
        if link_model.cold_start:
            for a, b in topology.pairs():
                at = self.place[a.name], self.place[b.name]
                self.streams[at] = link_model.connections(topology, a.name, b.name)
                self.windows.size[at] = link_model.initial_window(topology, a.name, b.name)

    def become(self, topology: Topology, taken: Sequence[tuple[str, str, float]] = ()) -> None:
        """Take the rates, delays and losses of `topology`; `taken`: from, to and line rate that others use up."""
        link_model, place = self.link_model, self.place

        def goodput(rate: float) -> float:
            return link_model.goodput(max(rate, 0.0), topology.transport)

        for site in topology.sites:
            i = place[site.name]
            self.capacity[self.up[i]] = goodput(site.up - sum(rate for a, _, rate in taken if a == site.name))
            self.capacity[self.down[i]] = goodput(site.down - sum(rate for _, b, rate in taken if b == site.name))
        for index, shared in enumerate(topology.core):
            others = sum(rate for a, b, rate in taken if (a, b) in shared.pairs)
            self.capacity[self._first_core + index] = goodput(shared.rate - others)
        for link in topology.links:
            i, j = place[link.source], place[link.target]
            back = topology.link(link.target, link.source)
            self.delay[i, j] = close_delay(topology, link)
            self.rtt[i, j] = self.delay[i, j] + close_delay(topology, back)
            self.unrest[i, j] = unrest(topology, link)
            severed = link.mean_loss == 1
            self.loss[i, j] = 0.0 if severed else link.mean_loss
            self.cap[i, j] = np.inf if severed else link_model.window_cap(topology, link.source, link.target)
            if link_model.send_buffers:  # which never shrink
                self.room[i, j] = max(self.room[i, j], link_model.held_bytes(topology, link.source, link.target))
            if self.pair[i, j] != FREE:
                others = sum(rate for a, b, rate in taken if (a, b) == (link.source, link.target))
                rate = np.inf if link.rate is None else goodput(link.rate - others)
                self.capacity[self.pair[i, j]] = 0.0 if severed else rate
        if self.connections is None and self.loss.any():
            streams = np.ones(self.loss.shape, dtype=np.int64)
            for a, b in topology.pairs():
                streams[place[a.name], place[b.name]] = link_model.connections(topology, a.name, b.name)
            self.connections = LossyConnections(streams.ravel(), topology.transport)

    def state(self) -> tuple[bytes, ...]:
        """What a round or the timeline can change for the next one; equal states behave equally."""
        links = (part.tobytes() for part in (self.capacity, self.delay, self.cap, self.loss))
        return (*links, self.windows.state())

    def limits(self) -> Floats:
        """(sites, sites) bytes per second that a pair may have at most: buffers, and the window while it grows. Where
        packets are lost, windows are followed by themselves."""
        if not self.link_model.cold_start:
            return self.cap
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = self.windows.size / self.rtt
        return np.minimum(self.cap, np.where((self.rtt > 0) & (self.loss == 0), grown, np.inf))

    def queues(self, used: Ints, left: Floats) -> Floats:
        """(sites,) seconds that packets wait before each downlink while these pairs send, with so many bytes left each.

        Not before uplinks, whose queue is a sender's own: TCP small queues keep it short.
        """
        n, found = len(self.place), np.zeros(len(self.place))
        i, j = used // n, used % n
        flight, most = np.minimum(self.windows.size[i, j], left), np.minimum(self.capacity[self.up[i]], self.cap[i, j])
        for target in np.unique(j).tolist():
            to = j == target
            found[target] = standing(flight[to], self.rtt[i, j][to], most[to], self.capacity[self.down[target]])
        return found

    def routes(self) -> Routes:
        """Pairs of sites, source by source, with the limits and capacities of now. One object, which is kept."""
        if self._routes is None:
            shape = self.pair.shape
            crossed = [
                np.broadcast_to(self.up[:, None], shape),
                self.pair,
                np.broadcast_to(self.down, shape),
                *self.core,
            ]
            if self.link_model.host_bandwidth is not None:
                crossed.append(np.full(shape, self.host))
            self._routes = Routes(np.stack([c.ravel() for c in crossed], axis=1), self.limits().ravel(), self.capacity)
        self.refresh()
        return self._routes

    def refresh(self) -> None:
        """Give the routes the limits and capacities of now. Due after every change of the links or of a window."""
        if self._routes is not None:
            self._routes.become(self.limits().ravel(), self.capacity)


class Fabric:
    """Carries out transfers in a simulation; counts the bytes that each rank sends.

    Between two ranks messages leave in the order in which they became ready, whichever transfer they belong to, as in
    the executor, which has one queue per peer (`harness.transport.peers`). Pairs share links max-min fairly.

    backlog: seconds until the last byte of what was handed over before has left, by pair of ranks.
    """

    def __init__(self, env: simpy.Environment, links: Links, payload: Floats, backlog: Floats | None = None) -> None:
        self.env, self.links, self.payload = env, links, payload
        self._busy = np.zeros(len(payload) ** 2, dtype=bool)  # by pair of ranks
        self.buffers: SendBuffers[ActiveTransfer] | None = None
        self.left: Floats = np.zeros(0)  # when the last byte of each pair of ranks has left
        if links.link_model.send_buffers:
            self.buffers = SendBuffers(links.room[np.ix_(links.site_of, links.site_of)].ravel())
            self.left = np.zeros(len(payload) ** 2) if backlog is None or not backlog.size else backlog.copy()
            self._busy |= self.left > 0
            for due in np.unique(self.left[self._busy]).tolist():
                env.process(self._clear(due, np.flatnonzero(self.left == due)))
        self._queues: defaultdict[int, deque[tuple[ActiveTransfer, int]]] = defaultdict(deque)
        self.flows = FlowNetwork(env, links.routes())
        self._growing: set[int] = set()  # pairs of sites whose window is about to double
        self._due: dict[float, list[int]] = {}

    def carry(self, transfer: Transfer, algorithm: Algorithm) -> ActiveTransfer:
        """The transfer, waiting for its members to be ready."""
        return ActiveTransfer(self, transfer, algorithm)

    def enqueue(self, transfer: ActiveTransfer, messages: Ints) -> None:
        """Messages that are ready: each leaves when those before it on its pair have left."""
        messages = np.sort(messages)
        transfer.hand_over(messages)
        pairs, first = np.unique(transfer.pairs[messages], return_index=True)
        leaving = first[~self._busy[pairs]]
        self._busy[pairs] = True
        waiting = np.ones(len(messages), dtype=bool)
        waiting[leaving] = False
        for message, pair in zip(messages[waiting].tolist(), transfer.pairs[messages[waiting]].tolist(), strict=True):
            self._queues[pair].append((transfer, message))
        if self.buffers is not None:
            sizes = transfer.messages.size[messages]
            transfer.handed_over(self.buffers.put(transfer, messages, transfer.pairs[messages], sizes))
        if leaving.size:
            transfer.leave(messages[leaving])

    def _clear(self, due: float, pairs: Ints) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(due)
        self.departed(pairs)

    def departed(self, pairs: Ints) -> None:
        """The message under way on each of these pairs has left: the next one follows."""
        if self.buffers is not None:
            self.left[pairs] = self.env.now
        following: dict[ActiveTransfer, list[int]] = {}
        latest, messages_of_latest = None, list[int]()
        idle = []
        for pair in pairs.tolist():
            if queue := self._queues[pair]:
                transfer, message = queue.popleft()
                if transfer is not latest:
                    latest, messages_of_latest = transfer, following.setdefault(transfer, [])
                messages_of_latest.append(message)
            else:
                idle.append(pair)
        self._busy[idle] = False
        for transfer, messages in following.items():
            transfer.leave(np.array(messages))

    def send(self, routes: Ints, sizes: Floats, drained: Callable[[Ints], None], messages: Ints) -> None:
        """Begin flows between pairs of sites; `drained` hears of each message when its last byte has left."""
        self.flows.start(routes, sizes, drained, messages)
        if self.links.link_model.cold_start:
            self._watch(np.unique(routes))

    def repaired(self, pairs: Ints, chosen: Ints, sizes: Floats, begun: Floats) -> Floats:
        """When messages that the links have carried since they began, each between another pair of sites, have left for
        good, with what was lost."""
        links, n = self.links, len(self.links.place)
        assert links.connections is not None
        loss, rtt = links.loss[pairs // n, pairs % n], links.rtt[pairs // n, pairs % n]
        rate = sizes / np.maximum(self.env.now - begun, 1e-9)
        return links.connections.send(pairs, chosen, sizes, begun, loss, rtt, rate)

    def _watch(self, pairs: Ints) -> None:
        """Slow start: the window of every pair in use doubles each round trip until its links are the limit."""
        links, n = self.links, len(self.links.place)
        i, j = pairs // n, pairs % n
        full = np.minimum(links.capacity[links.up[i]], links.capacity[links.down[j]]) * links.rtt[i, j]
        small = links.windows.size[i, j] < full
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
        used, at = self.flows.under_way, (pairs // n, pairs % n)
        queues = links.queues(used, self.flows.left) if links.leaves_slow_start else np.zeros(n)
        seen = queues[at[1]] + links.unrest[at]
        links.windows.grow(at, links.rtt[at], seen, links.streams[at] * links.segment)
        links.refresh()
        if used.size:
            self.flows.change()
            self._watch(np.intersect1d(pairs, used))


class ActiveTransfer:
    """One transfer under way. `ready(rank)` when a member joins; `done[rank]` happens when it has its result."""

    def __init__(self, fabric: Fabric, transfer: Transfer, algorithm: Algorithm) -> None:
        self.fabric, self.transfer = fabric, transfer
        links = fabric.links
        shares = len(transfer.members) if _spread(transfer, algorithm) else 1
        pieces = 1
        if transfer.collective is Collective.ALL_REDUCE or links.connections is not None:
            pieces = links.link_model.chunking.of(transfer.size / shares, len(transfer.members))
        self.messages: Messages = messages_for(transfer, algorithm, pieces)
        self.done = {rank: fabric.env.event() for rank in transfer.members}
        self._place = {rank: place for place, rank in enumerate(transfer.members)}
        self._ranks = np.array(transfer.members)
        sites = links.site_of[self._ranks]
        sources, targets = sites[self.messages.source], sites[self.messages.target]
        own = self.messages.source == self.messages.target
        self._routes = sources * len(links.place) + targets
        self._delay = links.delay[sources, targets] + links.link_model.message_seconds
        self._delay[own] = 0.0
        self._lossy: Flags = links.loss[sources, targets] > 0
        # When a message began to leave, and when the last of it that was lost has left again.
        self._begun, self._repaired = np.zeros((2, len(self.messages)))
        self._connection: Ints = np.zeros(len(self.messages), dtype=np.int64)
        self._free = own | (sources == targets) | (self.messages.size == 0)
        self._needs = self.messages.needs.copy()
        self._arrival: Floats = np.zeros(self.messages.nodes)  # of the latest message that has left for each node
        self._complete: dict[float, list[int]] = {}  # nodes by the time at which the last one arrives
        # A member is done when it has its result and has handed everything to the network, or to its kernel.
        self._part: dict[int, float] = {}  # bytes under way of a message that leaves
        self._rest: dict[int, float] = {}  # bytes of it that follow
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
            if not (done := self.done[self.transfer.members[place]]).triggered:
                done.succeed()

    def _release(self, messages: Ints) -> None:
        """Messages whose node has happened."""
        free = self._free[messages]
        if not free.all():
            self.fabric.enqueue(self, messages[~free])
        if free.any():
            self._left(messages[free])

    def hand_over(self, messages: Ints) -> None:
        """Messages that are queued: where packets are lost, each is one connection's."""
        if (lossy := messages[self._lossy[messages]]).size:
            links, routes, n = self.fabric.links, self._routes[lossy], len(self.fabric.links.place)
            assert links.connections is not None
            sizes, rtt = self.messages.size[lossy], links.rtt[routes // n, routes % n]
            self._connection[lossy] = links.connections.choose(routes, sizes, self.fabric.env.now, rtt)

    def leave(self, messages: Ints) -> None:
        """Send messages whose turn has come, each on another pair."""
        sizes = self.messages.size[messages]
        np.add.at(self.fabric.payload, self._ranks[self.messages.source[messages]], sizes)
        self._begun[messages] = self.fabric.env.now
        if (buffers := self.fabric.buffers) is not None:
            pairs = self.pairs[messages].tolist()
            parts = np.array([buffers.first_part(pair, size) for pair, size in zip(pairs, sizes.tolist(), strict=True)])
            self._part.update(zip(messages.tolist(), parts.tolist(), strict=True))
            self._rest.update(zip(messages.tolist(), (sizes - parts).tolist(), strict=True))
            sizes = parts
        self._send(messages, sizes)

    def _send(self, messages: Ints, sizes: Floats) -> None:
        self.fabric.send(self._routes[messages], sizes, self._drained, messages)

    def handed_over(self, messages: Ints) -> None:
        """The kernel has these messages: for their members it is as if they had left."""
        if messages.size:
            sources = self.messages.source[messages]
            np.subtract.at(self._unsent, sources, 1)
            self._settle(np.unique(sources))

    def _drained(self, messages: Ints) -> None:
        if (buffers := self.fabric.buffers) is not None:
            messages = self._drained_parts(messages, buffers)
        if (lossy := messages[self._lossy[messages]]).size:
            routes, sizes = self._routes[lossy], self.messages.size[lossy]
            chosen, begun = self._connection[lossy], self._begun[lossy]
            self._repaired[lossy] = self.fabric.repaired(routes, chosen, sizes, begun)
        if messages.size:
            self.fabric.departed(self.pairs[messages])
            self._left(messages)

    def _drained_parts(self, messages: Ints, buffers: SendBuffers[ActiveTransfer]) -> Ints:
        """Those that have left whole; what is left of the others follows."""
        whole = []
        for message, pair in zip(messages.tolist(), self.pairs[messages].tolist(), strict=True):
            for transfer, taken in buffers.carried(pair, self._part.pop(message)):
                transfer.handed_over(np.array([taken]))
            if rest := self._rest.pop(message):
                self._part[message], self._rest[message] = rest, 0.0
                self._send(np.array([message]), np.array([rest]))
            else:
                whole.append(message)
        return np.array(whole, dtype=np.int64)

    def _left(self, messages: Ints) -> None:
        """The last byte has left, and after the delay it has arrived."""
        free = messages if self.fabric.buffers is None else messages[self._free[messages]]
        self.handed_over(free[self.messages.source[free] != self.messages.target[free]])
        now, nodes = self.fabric.env.now, self.messages.into[messages]
        np.maximum.at(self._arrival, nodes, np.maximum(now, self._repaired[messages]) + self._delay[messages])
        np.subtract.at(self._needs, nodes, 1)
        complete = np.unique(nodes[self._needs[nodes] == 0])
        if not complete.size:
            return
        at = self._arrival[complete]
        for node, time in zip(complete[at > now].tolist(), at[at > now].tolist(), strict=True):
            if (together := self._complete.get(time)) is None:
                together = self._complete[time] = []
                self.fabric.env.process(self._arrive(time, time - now))
            together.append(node)
        if (complete := complete[at <= now]).size:
            self._happened(complete)

    def _arrive(self, time: float, delay: float) -> Generator[simpy.Event, Any, None]:
        """The last of what some nodes need arrives: only this is an event, not the arrival of every message."""
        yield self.fabric.env.timeout(delay)
        self._happened(np.array(sorted(self._complete.pop(time))))


def _spread(transfer: Transfer, algorithm: Algorithm) -> bool:
    return transfer.collective is Collective.ALL_REDUCE and algorithm is not Algorithm.PS
