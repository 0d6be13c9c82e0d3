"""Collectives carried out on the links of a topology, message by message."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from netsim.simulated.fair_rates import Flags, Floats, Ints
from netsim.simulated.flows import FlowNetwork
from netsim.simulated.link_resources import Links
from netsim.simulated.messages import Messages, messages_for
from netsim.simulated.send_buffers import SendBuffers
from netsim.traffic import Algorithm, Collective, Transfer

_HELD = 0.99  # of what its window lets go; a message that is slower is held by its links


class Fabric:
    """Carries out transfers in a simulation; counts the bytes that each rank sends.

    Between two ranks messages leave in the order in which they became ready, whichever transfer they belong to, as in
    the executor, which has one queue per peer (`harness.transport.peers`). Pairs share links max-min fairly. Where
    packets are lost each of a pair's connections is a lane of its own, with one message at a time.

    backlog: seconds until the last byte of what was handed over before has left, by pair of ranks.
    """

    def __init__(self, env: simpy.Environment, links: Links, payload: Floats, backlog: Floats | None = None) -> None:
        self.env, self.links, self.payload = env, links, payload
        lanes = links.lanes
        self._busy = np.zeros(len(payload) ** 2 * lanes, dtype=bool)  # by lane of a pair of ranks
        self.buffers: SendBuffers[ActiveTransfer] | None = None
        self.left: Floats = np.zeros(0)  # when the last byte of each pair of ranks has left
        if links.link_model.send_buffers:
            self.buffers = SendBuffers(links.room[np.ix_(links.site_of, links.site_of)].ravel())
            self.left = np.zeros(len(payload) ** 2) if backlog is None or not backlog.size else backlog.copy()
            self._busy |= np.repeat(self.left > 0, lanes)
            for due in np.unique(self.left[self.left > 0]).tolist():
                env.process(self._clear(due, np.flatnonzero(np.repeat(self.left == due, lanes))))
        self._queues: defaultdict[int, deque[tuple[ActiveTransfer, int]]] = defaultdict(deque)
        self.flows = FlowNetwork(env, links.routes())
        self._growing: set[int] = set()  # pairs of sites whose window is about to double
        self._due: dict[float, list[int]] = {}

    def carry(self, transfer: Transfer, algorithm: Algorithm) -> ActiveTransfer:
        """The transfer, waiting for its members to be ready."""
        return ActiveTransfer(self, transfer, algorithm)

    def enqueue(self, transfer: ActiveTransfer, messages: Ints) -> None:
        """Messages that are ready: each leaves when those before it on its lane have left."""
        messages = np.sort(messages)
        transfer.hand_over(messages)
        lanes, first = np.unique(transfer.lanes[messages], return_index=True)
        leaving = first[~self._busy[lanes]]
        self._busy[lanes] = True
        waiting = np.ones(len(messages), dtype=bool)
        waiting[leaving] = False
        for message, lane in zip(messages[waiting].tolist(), transfer.lanes[messages[waiting]].tolist(), strict=True):
            self._queues[lane].append((transfer, message))
        if self.buffers is not None:
            sizes = transfer.messages.size[messages]
            transfer.handed_over(self.buffers.put(transfer, messages, transfer.pairs[messages], sizes))
        if leaving.size:
            transfer.leave(messages[leaving])

    def _clear(self, due: float, lanes: Ints) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(due)
        self.departed(lanes)

    def departed(self, lanes: Ints) -> None:
        """The message under way on each of these lanes has left: the next one follows."""
        if self.buffers is not None:
            self.left[lanes // self.links.lanes] = self.env.now
        following: dict[ActiveTransfer, list[int]] = {}
        latest, messages_of_latest = None, list[int]()
        idle = []
        for lane in lanes.tolist():
            if queue := self._queues[lane]:
                transfer, message = queue.popleft()
                if transfer is not latest:
                    latest, messages_of_latest = transfer, following.setdefault(transfer, [])
                messages_of_latest.append(message)
            else:
                idle.append(lane)
        self._busy[idle] = False
        for transfer, messages in following.items():
            transfer.leave(np.array(messages))

    def send(self, transfer: ActiveTransfer, messages: Ints, sizes: Floats) -> None:
        """Begin flows; the transfer hears of each message when its last byte has left."""
        routes = transfer.routes[messages]
        lanes = routes * self.links.lanes + transfer.connection[messages]
        self.flows.start(lanes, sizes, transfer.drained, messages, transfer.limits[messages])
        if self.links.link_model.cold_start:
            self.watch(np.unique(routes))

    def let_go(self, transfer: ActiveTransfer, messages: Ints) -> Floats:
        """Bytes/s at which the windows of their connections let go messages that begin to leave now."""
        links, n = self.links, len(self.links.place)
        assert links.connections is not None
        pairs, chosen = transfer.routes[messages], transfer.connection[messages]
        sizes = transfer.messages.size[messages]
        return links.connections.limits(pairs, chosen, sizes, self.env.now, links.rtt[pairs // n, pairs % n])

    def repaired(self, transfer: ActiveTransfer, messages: Ints) -> Floats:
        """When messages that the links have carried since they began have left for good, with what was lost."""
        links, n = self.links, len(self.links.place)
        assert links.connections is not None
        pairs, chosen = transfer.routes[messages], transfer.connection[messages]
        sizes = transfer.messages.size[messages]
        source, target, begun = pairs // n, pairs % n, transfer.begun[messages]
        found = sizes / np.maximum(self.env.now - begun, 1e-9)
        wide = np.minimum(links.capacity[links.up[source]], links.capacity[links.down[target]])
        rate = np.where(found < _HELD * transfer.limits[messages], found, wide)
        loss, rtt = links.loss[source, target], links.rtt[source, target]
        return links.connections.send(pairs, chosen, sizes, begun, loss, rtt, rate)

    def watch(self, pairs: Ints) -> None:
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
        links.windows.grow(at, links.rtt[at], seen, (links.streams[at] * links.segment).astype(float))
        links.refresh()
        if used.size:
            self.flows.change()
            self.watch(np.intersect1d(pairs, used))


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
        self.routes = sources * len(links.place) + targets
        self._delay = links.delay[sources, targets] + links.link_model.message_seconds
        self._delay[own] = 0.0
        self._lossy: Flags = links.loss[sources, targets] > 0
        # When a message began to leave, and when the last of it that was lost has left again.
        self.begun, self._repaired = np.zeros((2, len(self.messages)))
        self.limits: Floats = np.full(len(self.messages), np.inf)  # bytes/s that windows let go
        self.connection: Ints = np.zeros(len(self.messages), dtype=np.int64)
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
        self.lanes = self.pairs * links.lanes  # the first one of each message's pair, until its connection is known

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
            links, routes, n = self.fabric.links, self.routes[lossy], len(self.fabric.links.place)
            assert links.connections is not None
            sizes, rtt = self.messages.size[lossy], links.rtt[routes // n, routes % n]
            self.connection[lossy] = links.connections.choose(routes, sizes, self.fabric.env.now, rtt)
            self.lanes[lossy] += self.connection[lossy]

    def leave(self, messages: Ints) -> None:
        """Send messages whose turn has come, each on another pair."""
        sizes = self.messages.size[messages]
        np.add.at(self.fabric.payload, self._ranks[self.messages.source[messages]], sizes)
        self.begun[messages] = self.fabric.env.now
        lossy = self._lossy[messages]
        if lossy.any():
            self.limits[messages[lossy]] = self.fabric.let_go(self, messages[lossy])
        if (buffers := self.fabric.buffers) is not None:
            pairs = self.pairs[messages].tolist()
            parts = np.array([buffers.first_part(pair, size) for pair, size in zip(pairs, sizes.tolist(), strict=True)])
            self._part.update(zip(messages.tolist(), parts.tolist(), strict=True))
            self._rest.update(zip(messages.tolist(), (sizes - parts).tolist(), strict=True))
            sizes = parts
        self._send(messages, sizes)

    def _send(self, messages: Ints, sizes: Floats) -> None:
        self.fabric.send(self, messages, sizes)

    def handed_over(self, messages: Ints) -> None:
        """The kernel has these messages: for their members it is as if they had left."""
        if messages.size:
            sources = self.messages.source[messages]
            np.subtract.at(self._unsent, sources, 1)
            self._settle(np.unique(sources))

    def drained(self, messages: Ints) -> None:
        if (buffers := self.fabric.buffers) is not None:
            messages = self._drained_parts(messages, buffers)
        if (lossy := messages[self._lossy[messages]]).size:
            self._repaired[lossy] = self.fabric.repaired(self, lossy)
        if messages.size:
            self.fabric.departed(self.lanes[messages])
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
