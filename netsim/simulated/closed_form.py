"""The time of a whole plan on a uniform network: equal access links, equal delays, equal workers.

Where a step's transfers are released together and done before the next step, they take, with b bytes over the busiest
link in each of m hops, pieces of p bytes, goodput g and one-way delay d,

    max( m b / g + d,  (b + (m - 1) p) / g + m d )

the first where the link never idles, the second where every hop waits for the one before (Hockney 1994). Otherwise,
for buckets along a backward pass and for transfers of several steps that overlap, the link is followed from release to
release (`netsim.simulated.fifo_link`), which is exact in steady state, and a steady state is found and repeated. Equal
to the simulator to 0.5 % (`tests/simulated/test_closed_form.py`), and never less than bytes over goodput.

It knows no loss of packets: what windows and timeouts then cost has no formula of this kind, and is in the simulator
only (`netsim.simulated.lossy_connections`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from netsim.framing import goodput
from netsim.simulated.fair_rates import Floats
from netsim.simulated.fifo_link import Rates, exposed_once, overlapped_seconds
from netsim.simulated.link_model import LinkModel
from netsim.simulated.load import Load, Pattern, load_of
from netsim.topology import Link, Site, Topology, Transport

__all__ = ["Load", "Times", "load_of", "times", "uniform_topology"]


@dataclass(frozen=True)
class Times:
    """Seconds of a run, as arrays over the sweep."""

    compute: Floats
    communication: Floats

    @property
    def total(self) -> Floats:
        return self.compute + self.communication


def uniform_topology(sites: int, rate: float, rtt: float, transport: Transport | None = None) -> Topology:
    """`sites` sites whose access links have `rate` bit/s both ways, `rtt` seconds apart."""
    nodes = tuple(Site(f"site-{index}", rate, rate) for index in range(sites))
    links = tuple(Link(a.name, b.name, rtt / 2) for a in nodes for b in nodes if a is not b)
    return Topology("uniform", nodes, links, transport or Transport())


def times(
    load: Load,
    step_seconds: ArrayLike,
    rate: ArrayLike,
    rtt: ArrayLike,
    link_model: LinkModel = LinkModel(),  # noqa: B008 - frozen
    backward_share: float = 2 / 3,
    mtu: int = 1500,
) -> Times:
    """Seconds of the run for arrays (broadcast together) of step times, line rates in bit/s and RTTs in seconds."""
    step, line, trip = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (step_seconds, rate, rtt)))
    g = goodput(1.0, mtu) / 8 * link_model.efficiency * line
    hop = trip / 2 + link_model.message_seconds

    def points() -> list[Rates]:
        host = link_model.transfer_seconds, link_model.byte_seconds
        flat = zip(step.ravel().tolist(), g.ravel().tolist(), hop.ravel().tolist(), strict=True)
        return [Rates(s, backward_share, bandwidth, d, *host) for s, bandwidth, d in flat]

    if load.calendar is not None:
        total = np.array([overlapped_seconds(load, at) for at in points()]).reshape(step.shape)
        return Times(load.steps * step, np.maximum(0.0, total - load.steps * step))
    exposed = np.zeros_like(step)
    for pattern in load.patterns:
        if all(phase.together or not phase.jobs for phase in pattern.phases):
            once = _exposed(pattern, step, g, hop, link_model, backward_share)
        else:
            once = np.array([exposed_once(pattern, at) for at in points()]).reshape(step.shape)
        exposed = exposed + pattern.count * once
    return Times(load.steps * step, exposed)


def _exposed(
    pattern: Pattern, step: Floats, g: Floats, hop: Floats, link_model: LinkModel, backward_share: float
) -> Floats:
    """What a step waits for phases whose jobs are released together."""
    now = np.zeros_like(step)
    for phase in pattern.phases:
        finish = now
        for ready, size, delays in phase.floor:
            released = np.maximum(now, step * (1 - backward_share + backward_share * ready))
            finish = np.maximum(finish, released + size / g + delays * hop)
        if (job := phase.together) is not None:
            released = np.maximum(now, step * (1 - backward_share + backward_share * job.ready))
            (tail, delays), b = job.tail, job.hop_bytes
            busy = job.hops * b / g + hop
            chain = (b + (job.hops - 1) * job.piece) / g + job.hops * hop
            finish = np.maximum(finish, released + np.maximum(busy, chain) + tail / g + delays * hop)
        now = finish + phase.transfers * link_model.transfer_seconds + phase.size * link_model.byte_seconds
    return np.maximum(0.0, now - step)
