"""The links of a topology as resources: capacities, delays and windows, which a timeline and every round may change.

Ranks are counted site by site. Workers of one site share its access link and reach each other without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsim.emulated.jitter import close_delay, unrest
from netsim.framing import segment
from netsim.simulated.cold_windows import ColdWindows, standing
from netsim.simulated.fair_rates import FREE, Flags, Floats, Ints, Routes
from netsim.simulated.link_model import LinkModel
from netsim.simulated.lossy_connections import LossyConnections
from netsim.topology import Topology


def site_of_rank(topology: Topology) -> tuple[str, ...]:
    """The site of each rank: in their order."""
    return tuple(site.name for site in topology.sites)


class Links:
    """Resources of a topology: indices, capacities in bytes/s, delays and windows by pair of sites.

    capped: whether every pair gets a resource of its own, because a timeline may cap or sever it later.
    draw: see `LossyConnections`.
    """

    def __init__(self, topology: Topology, link_model: LinkModel, capped: bool = False, draw: int = 0) -> None:
        self._draw = draw
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
        self.severed: Flags = np.zeros((n, n), dtype=bool)
        self.beside: Floats = np.zeros((n, n))  # bytes per second of cross-traffic
        self.connections: LossyConnections | None = None  # of all pairs, once packets of any are lost
        self.cap: Floats = np.full((n, n), np.inf)
        self.windows = ColdWindows.unlimited(n)
        self.streams: Ints = np.ones((n, n), dtype=np.int64)  # connections of a pair, where they are asked for
        self.leaves_slow_start = topology.transport.congestion_control == "cubic"  # where it sees a queue
        self.room: Floats = np.zeros((n, n))  # bytes that kernels hold beyond those
        # Of a pair's connections each carries a message of its own where packets are lost, else all of them carry one.
        may_lose = capped or topology.loses_packets
        if may_lose or link_model.cold_start:
            self._count_streams(topology)
        self.lanes = int(self.streams.max()) if may_lose else 1
        self.become(topology)
        if link_model.cold_start:
            for a, b in topology.pairs():
                at = self.place[a.name], self.place[b.name]
                self.windows.size[at] = link_model.initial_window(topology, a.name, b.name)

    def become(self, topology: Topology, taken: Sequence[tuple[str, str, float]] = ()) -> None:
        """Take the rates, delays and losses of `topology`; `taken`: from, to and line rate that others would use up."""
        link_model, place = self.link_model, self.place

        def goodput(rate: float) -> float:
            return link_model.goodput(max(rate, 0.0), topology.transport)

        for site in topology.sites:
            i = place[site.name]
            self.capacity[self.up[i]], self.capacity[self.down[i]] = goodput(site.up), goodput(site.down)
        for index, shared in enumerate(topology.core):
            self.capacity[self._first_core + index] = goodput(shared.rate)
        self.beside[:] = 0.0
        for source, target, rate in taken:
            self.beside[place[source], place[target]] += goodput(rate)
        for link in topology.links:
            i, j = place[link.source], place[link.target]
            self.delay[i, j] = close_delay(topology, link)
            self.unrest[i, j] = unrest(topology, link)
            severed = self.severed[i, j] = link.mean_loss == 1
            self.loss[i, j] = 0.0 if severed else link.mean_loss
            self.cap[i, j] = np.inf if severed else link_model.window_cap(topology, link.source, link.target)
            if link_model.send_buffers:  # which never shrink
                self.room[i, j] = max(self.room[i, j], link_model.held_bytes(topology, link.source, link.target))
            if self.pair[i, j] != FREE:
                rate = np.inf if link.rate is None else goodput(link.rate)
                self.capacity[self.pair[i, j]] = 0.0 if severed else rate
        self.rtt = self.delay + self.delay.T
        if self.connections is None and self.loss.any():
            self.connections = LossyConnections(self.streams.ravel(), topology.transport, self._draw)

    def _count_streams(self, topology: Topology) -> None:
        for a, b in topology.pairs():
            at = self.place[a.name], self.place[b.name]
            self.streams[at] = self.link_model.connections(topology, a.name, b.name)

    def state(self) -> tuple[bytes, ...]:
        """What a round or the timeline can change for the next one; equal states behave equally."""
        links = (part.tobytes() for part in (self.capacity, self.beside, self.delay, self.cap, self.loss))
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
            paths = np.stack([c.ravel() for c in crossed], axis=1)
            self._routes = Routes(paths, self.limits().ravel(), self.capacity, lanes=self.lanes)
        self.refresh()
        return self._routes

    def refresh(self) -> None:
        """Give the routes the limits and capacities of now. Due after every change of the links or of a window."""
        if self._routes is not None:
            self._routes.become(self.limits().ravel(), self.capacity, self.beside.ravel())
