"""The closed form of a whole plan on a uniform network: equal access links, equal delays, equal workers.

There, a step's transfers keep every link busy from the moment they are released, and the last byte travels once more:

    finish = max( max_k (r_k + W_k / g) + d,  max_k (r_k + V_k / g + m_k d) )

r_k: when transfer k is released;  W_k: bytes of the busiest link from transfer k on;  g: goodput;  d: one-way delay;
V_k, m_k: bytes and delays that follow one another when the pipes never fill (half of the bytes and two delays for the
direct all-reduce, 2 (n-1) delays for the ring). Equal to the simulator for one transfer at a time, and for any number
of them while links stay busy. It is instant, and evaluates whole sweeps of rates and RTTs as arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import ArrayLike

from netsim.collectives import Chunking
from netsim.framing import goodput
from netsim.simulated.flows import Floats
from netsim.simulated.link_model import LinkModel
from netsim.topology import Link, Site, Topology, Transport
from netsim.traffic import Algorithm, Collective, Plan, Transfer

_Line = tuple[float, float, float]  # share of the backward pass, bytes, delays


@dataclass(frozen=True)
class Phase:
    """Transfers that run together, as lines whose maximum is their finish.

    transfers, size: how many a member takes part in at most, and their encoded bytes (for the cost at the host).
    buffered: whether they wait for the end of the step, so that they are copies and not the gradients themselves.
    """

    lines: tuple[_Line, ...]
    transfers: int
    size: int
    buffered: bool


@dataclass(frozen=True)
class Pattern:
    """A chain of phases, what it may overlap with, and how often it comes in the run."""

    count: int
    overlap: int
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Load:
    """A plan, condensed to what its time on any uniform network follows from. syncs: steps with a transfer."""

    steps: int
    syncs: int
    patterns: tuple[Pattern, ...]


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


def load_of(plan: Plan, chunking: Chunking = Chunking()) -> Load:  # noqa: B008 - frozen
    """Condense `plan`. All-reduces that leave their algorithm open go direct, the cheapest on a uniform network."""
    kinds = _kinds(plan)
    chains_of: dict[tuple[Transfer, ...], list[tuple[int, tuple[Phase, ...]]]] = {}
    counts: Counter[tuple[int, tuple[Phase, ...]]] = Counter()
    for kind, count in kinds.items():
        transfers = tuple(t for index in kind for t in plan.recurrences[index].transfers)
        if transfers not in chains_of:
            chains_of[transfers] = list(_chains(transfers, plan.sites, chunking))
        for chain in chains_of[transfers]:
            counts[chain] += count
    patterns = tuple(Pattern(count, *chain) for chain, count in counts.items())
    return Load(plan.steps, sum(kinds.values()), patterns)


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
    exposed = np.zeros_like(step)
    for pattern in load.patterns:
        now = np.zeros_like(step)
        for phase in pattern.phases:
            finish = now
            for share, size, delays in phase.lines:
                start = np.maximum(now, step * (1 - backward_share + backward_share * share))
                finish = np.maximum(finish, start + size / g + delays * hop)
            now = finish + phase.transfers * link_model.transfer_seconds + phase.size * link_model.byte_seconds
        exposed = exposed + pattern.count * np.maximum(0.0, now - step * (1 + pattern.overlap))
    return Times(load.steps * step, exposed)


def _kinds(plan: Plan) -> Counter[tuple[int, ...]]:
    """How many steps carry out which recurrences together."""
    if len(plan.recurrences) == 1:
        return Counter({(0,): plan.recurrences[0].count})
    at: dict[int, list[int]] = {}
    for index, recurrence in enumerate(plan.recurrences):
        for step in range(recurrence.first, min(recurrence.last, plan.steps) + 1, recurrence.every):
            at.setdefault(step, []).append(index)
    return Counter(tuple(found) for found in at.values())


def _chains(transfers: Sequence[Transfer], sites: int, chunking: Chunking) -> Iterator[tuple[int, tuple[Phase, ...]]]:
    for overlap, mine in groupby(sorted(transfers, key=lambda t: t.overlap), key=lambda t: t.overlap):
        ordered = sorted(mine, key=lambda t: (t.phase, t.ready))
        yield (
            overlap,
            tuple(_phase(list(phase), sites, chunking) for _, phase in groupby(ordered, key=lambda t: t.phase)),
        )


def _phase(transfers: list[Transfer], sites: int, chunking: Chunking) -> Phase:
    """Lines of a phase's transfers, which are ordered by `ready`."""
    kinds: dict[object, int] = {}
    which: list[int] = []
    examples: list[Transfer] = []
    for t in transfers:  # there may be thousands, of few kinds
        kind = t.members, t.elements, t.wire, t.collective, t.algorithm, t.root
        if (place := kinds.setdefault(kind, len(kinds))) == len(examples):
            examples.append(t)
        which.append(place)
    works = [_work(t, sites, chunking) for t in examples]
    up, down = np.array([w.up for w in works])[which], np.array([w.down for w in works])[which]
    part = np.array([[rank in t.members for rank in range(sites)] for t in examples])[which]
    sizes = np.array([t.size for t in examples])[which]
    # From transfer k on: the bytes that the busiest uplink or downlink has yet to carry.
    rest = np.maximum(_backwards(up).max(axis=1), _backwards(down).max(axis=1)).tolist()
    lines = [(t.ready, work, 1.0) for t, work in zip(transfers, rest, strict=True)]
    lines += [(t.ready, works[w].alone, works[w].delays) for t, w in zip(transfers, which, strict=True)]
    return Phase(
        lines=_hull(lines),
        transfers=int(part.sum(axis=0).max()),
        size=int((part * sizes[:, None]).sum(axis=0).max()),
        buffered=transfers[0].ready == 1,
    )


def _backwards(values: Floats) -> Floats:
    """Sums from each row to the last."""
    return np.flip(np.cumsum(np.flip(values, 0), 0), 0)


@dataclass(frozen=True)
class _Work:
    """Bytes up and down at each rank; bytes and delays one after the other when the transfer is alone."""

    up: Floats
    down: Floats
    alone: float
    delays: float


def _work(transfer: Transfer, sites: int, chunking: Chunking) -> _Work:
    members, n, size = list(transfer.members), len(transfer.members), float(transfer.size)
    up, down = np.zeros(sites), np.zeros(sites)
    if n == 1 or not size:
        return _Work(up, down, 0.0, 0.0)
    if transfer.collective is not Collective.ALL_REDUCE:
        star, leaves = (up, down) if transfer.collective is Collective.BROADCAST else (down, up)
        leaves[members] = size
        leaves[transfer.root], star[transfer.root] = 0.0, (n - 1) * size
        return _Work(up, down, (n - 1) * size, 1.0)
    if transfer.algorithm is Algorithm.PS:
        up[members] = size
        up[transfer.root] = (n - 1) * size
        return _Work(up, up, (n - 1) * size * (1 + 1 / chunking.of(size, n)), 2.0)
    half, count = (n - 1) * size / n, chunking.of(size / n, n)
    up[members] = 2 * half
    if transfer.algorithm is Algorithm.RING:
        hops = 2 * (n - 1)
        return _Work(up, up, (hops + count - 1) * size / n / count, float(hops))
    return _Work(up, up, half * (1 + 1 / count), 2.0)


def _hull(lines: list[_Line]) -> tuple[_Line, ...]:
    """The lines that can be a maximum: of each number of delays, the upper convex hull in (ready, bytes)."""
    kept: list[_Line] = []
    for delays in sorted({line[2] for line in lines}):
        hull: list[_Line] = []
        for line in sorted({line for line in lines if line[2] == delays}):
            while hull and (line[1] >= hull[-1][1] or (len(hull) > 1 and _below(hull[-2], hull[-1], line))):
                hull.pop()
            hull.append(line)
        kept += hull
    return tuple(kept)


def _below(a: _Line, b: _Line, c: _Line) -> bool:
    """Whether b lies on or below the segment from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
