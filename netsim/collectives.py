"""What a collective costs on a topology by the alpha-beta model, which algorithm is cheapest, and the bound.

alpha is the one-way delays that follow one another on the longest chain of messages, beta the time that the busiest
resource (an uplink, a downlink or a capped pair) needs for its bytes at goodput (Hockney 1994; Thakur, Rabenseifner
and Gropp 2005 for the algorithms). Between N sites of equal access links, direct reduce-scatter + all-gather costs two
delays and 2 (N-1)/N of the payload, a ring 2 (N-1) delays and the same payload, a parameter server two delays and
N-1 payloads.

Everyone starts at once, connections are warm, nothing is lost, and hosts take no time. The simulator lifts these
assumptions; this module is instant, and the yardstick of `longhaul bench collectives`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, sqrt

from netsim.framing import bandwidth_delay_product, goodput, segment
from netsim.topology import Link, Site, Topology, Transport
from netsim.traffic import Algorithm, Collective, Transfer

# Measured, warm all-reduces of 25 MB among 4 sites at 1 Gbit/s and 200 ms (25 MB in flight), packets paced: one or two
# connections per pair took 415 to 425 ms, four 500 to 550 ms, since windows that differ make the last bytes late; with
# busy cores one took 430 to 500 ms, two 430 to 450 ms, four 700 to 820 ms. Between 2 sites one took 306 ms, four 314.
WINDOW = 25 * 10**6  # bytes that one connection keeps in flight well; more was not measured
STREAMS = 16
# Bytes that may wait in the kernel for the window. A stream alone may take much, so that the link stays busy while its
# process waits for a core; several share less, so that none holds what another could send sooner.
UNSENT_ALONE, UNSENT_SHARED = 1 << 22, 1 << 20

# Measured, warm all-reduces of 25 MB among 8 sites at 250 Mbit/s and 10, 50 and 200 ms: direct, whose seven windows
# meet in each downlink, reached 53, 46 and 53 % of the bound, a ring 99, 101 and 105 %. Among 4 sites direct reaches
# 99 % at 100 Mbit/s; at 1 Gbit/s and 10 and 50 ms 85 to 89 % and 100 %, a ring 99 and 107 %.
INCAST = 5  # connections into one downlink that share it well
INCAST_FAST = 2  # the same at and above `FAST`, of connections that carry at least `LONG` in each half
FAST = 500e6  # bit/s
LONG = 4 * 10**6  # bytes; measured were 6.25 MB


@dataclass(frozen=True)
class Cost:
    """Seconds. latency: delays one after the other; transmission: the busiest resource's time at goodput."""

    latency: float
    transmission: float

    @property
    def seconds(self) -> float:
        """The two halves of the collective one after the other: the alpha-beta cost."""
        return self.latency + self.transmission


def cost(topology: Topology, transfer: Transfer, algorithm: Algorithm | None = None) -> Cost:
    """The cost of `transfer`; `algorithm` stands in for AUTO in an all-reduce."""
    algorithm = algorithm or transfer.algorithm
    sites = topology.sites
    where = [sites[rank] for rank in transfer.members]
    load: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for a, b, size in _flows(transfer, algorithm):
        if where[a] is not where[b]:
            load["up", where[a].name] += size
            load["down", where[b].name] += size
            load["pair", where[a].name, where[b].name] += size
            for link in topology.core_of(where[a].name, where[b].name):
                load["core", link.name] += size
    mtu = topology.transport.mtu
    busiest = max((8 * size / goodput(_rate(topology, *key), mtu) for key, size in load.items()), default=0.0)
    return Cost(_latency(topology, transfer, algorithm, where), busiest)


def choose(topology: Topology, transfer: Transfer) -> Algorithm:
    """The cheapest algorithm for an all-reduce; the parameter server only where the transfer names a root.

    Of those that cost the same but for rounding, the first: between two sites a ring is direct by another name, but
    may round numbers differently on the wire.
    """
    seconds = {algorithm: cost(topology, transfer, algorithm).seconds for algorithm in _candidates(transfer)}
    return next(algorithm for algorithm, found in seconds.items() if found <= min(seconds.values()) * (1 + 1e-9))


def select_algorithm(topology: Topology, transfer: Transfer) -> Algorithm:
    """The algorithm that the exchange uses: the cheapest one, but a ring instead of direct where more connections than
    share it well would meet in a downlink and the ring's delays hide behind its transmission.

    A ring's pieces follow one another, so that it takes transmission + one delay where a hop's bytes take longer than
    its delay. Quantised sums never go around a ring (`suited`).
    """
    cheapest, hops = choose(topology, transfer), 2 * (len(transfer.members) - 1)
    sites = topology.sites
    long = transfer.size >= LONG * len(transfer.members)
    fast = long and min(sites[rank].down for rank in transfer.members) >= FAST
    shared_well = len(transfer.members) - 1 <= (INCAST_FAST if fast else INCAST)
    if cheapest is not Algorithm.DIRECT or shared_well or transfer.wire.blocked:
        return cheapest
    ring = cost(topology, transfer, Algorithm.RING)
    pipelined = max(ring.transmission, ring.latency) + ring.latency / hops
    return Algorithm.RING if pipelined <= cost(topology, transfer, cheapest).seconds else cheapest


def suited(transfer: Transfer, algorithm: Algorithm) -> Algorithm:
    """What carries an all-reduce out if `algorithm` is asked for: direct instead of a ring where numbers are quantised.

    A ring encodes the partial sum again at every hop; FP4 (E3M0) then loses up to a third of it each time. Directly,
    contributions are added in fp32 and their sum is rounded once, as Streaming DiLoCo adds outer gradients (arXiv
    2501.18512, section 3.3). Both move the same bytes.
    """
    return Algorithm.DIRECT if algorithm is Algorithm.RING and transfer.wire.blocked else algorithm


def bound(topology: Topology, transfer: Transfer) -> float:
    """Seconds of the cheapest algorithm: the alpha-beta bound that efficiency is measured against."""
    return min(cost(topology, transfer, algorithm).seconds for algorithm in _candidates(transfer))


def floor(topology: Topology, transfer: Transfer) -> float:
    """Seconds of the cheapest algorithm if its halves overlap as far as causality allows.

    The last byte that leaves has one delay before it, and half of all bytes cannot leave before the other half has
    arrived somewhere: max(transmission + latency / 2, transmission / 2 + latency).
    """
    costs = [cost(topology, transfer, algorithm) for algorithm in _candidates(transfer)]
    if transfer.collective is not Collective.ALL_REDUCE:
        return min(found.seconds for found in costs)
    halves = [(found.latency, found.transmission) for found in costs]
    return min(max(beta + alpha / 2, beta / 2 + alpha) for alpha, beta in halves)


def streams_per_pair(topology: Topology, a: str, b: str) -> int:
    """Parallel TCP connections between two sites: so many that none must hold more than `WINDOW` bytes in flight, and
    that together they fill the link where loss keeps a single one from doing so."""
    streams = 1
    for source, target in ((a, b), (b, a)):
        rate, rtt = topology.rate(source, target), topology.rtt(source, target)
        windows = bandwidth_delay_product(rate, rtt) / WINDOW
        single = loss_cap(topology.link(source, target), rtt, topology.transport) if rtt else inf
        lossy = goodput(rate, topology.transport.mtu) / 8 / single
        streams = max(streams, ceil(windows), ceil(lossy))
    return min(streams, STREAMS)


def first_to_deliver(ahead: Sequence[float], rates: Sequence[float], size: float) -> int:
    """The connection that would deliver the next message of `size` first, behind what is ahead of it.

    The executor and the simulator hand out messages by it (earliest completion first: Lim et al., CoNEXT 2017).

    ahead, size: bytes or segments.  rates: the same per second.
    """
    due = [(before + size) / rate for before, rate in zip(ahead, rates, strict=True)]
    return due.index(min(due))


def unsent_limit(streams: int) -> int:
    """Bytes that may wait for the window of each of so many connections of a pair (TCP_NOTSENT_LOWAT)."""
    return UNSENT_ALONE if streams == 1 else max(UNSENT_SHARED // streams, 1 << 16)


def _candidates(transfer: Transfer) -> list[Algorithm]:
    if transfer.collective is not Collective.ALL_REDUCE:
        return [transfer.carried_out_by]  # in one direction
    ring = [] if transfer.wire.blocked else [Algorithm.RING]
    return [Algorithm.DIRECT, *ring, *([Algorithm.PS] if transfer.root is not None else [])]


def _flows(transfer: Transfer, algorithm: Algorithm) -> Iterator[tuple[int, int, int]]:
    """(source, target, bytes) between places among the members."""
    count = len(transfer.members)
    places = range(count)
    if transfer.collective is Collective.ALL_REDUCE and algorithm is not Algorithm.PS:
        sizes = [transfer.wire.bytes_for(end - start) for start, end in transfer.chunks()]
        if algorithm is Algorithm.RING:
            resolved = replace(transfer, algorithm=algorithm)
            yield from ((i, (i + 1) % count, resolved.sent_by(transfer.members[i])) for i in places if count > 1)
        else:
            assert algorithm is Algorithm.DIRECT, "the algorithm must be resolved before its cost is known"
            yield from ((a, b, sizes[a] + sizes[b]) for a in places for b in places if a != b)
        return
    if not transfer.collective.rooted and transfer.collective is not Collective.ALL_REDUCE:
        sizes = [transfer.size] * count
        if transfer.collective is Collective.REDUCE_SCATTER:
            sizes = [transfer.wire.bytes_for(end - start) for start, end in transfer.chunks()]
        yield from ((a, b, sizes[b]) for a in places for b in places if a != b)
        return
    assert transfer.root is not None
    root = transfer.members.index(transfer.root)
    others = [place for place in places if place != root]
    if transfer.collective.gathers:
        yield from ((place, root, transfer.size) for place in others)
    if transfer.collective.spreads:
        yield from ((root, place, transfer.size) for place in others)


def _rate(topology: Topology, kind: str, source: str, target: str = "") -> float:
    if kind == "pair":
        return topology.rate(source, target)
    if kind == "core":
        return next(link.rate for link in topology.core if link.name == source)
    return topology.site(source).up if kind == "up" else topology.site(source).down


def _latency(topology: Topology, transfer: Transfer, algorithm: Algorithm, where: list[Site]) -> float:
    def delay(a: Site, b: Site) -> float:
        return 0.0 if a is b else topology.link(a.name, b.name).delay

    if transfer.elements == 0 or len(where) == 1:
        return 0.0
    if transfer.collective is Collective.ALL_REDUCE and algorithm is Algorithm.RING:
        count = len(where)
        hops = [delay(where[i], where[(i + 1) % count]) for i in range(count)]
        # Chunk c makes 2 (count - 1) hops from place c on: twice around, but for the last two.
        return max(2 * sum(hops) - hops[start - 1] - hops[start - 2] for start in range(count))
    if not transfer.collective.rooted and algorithm is Algorithm.DIRECT:
        owners = where
    else:
        assert transfer.root is not None
        owners = [where[transfer.members.index(transfer.root)]]
    there = [max(delay(a, owner) for a in where) for owner in owners]
    back = [max(delay(owner, a) for a in where) for owner in owners]
    if transfer.collective is Collective.ALL_REDUCE:
        return max(a + b for a, b in zip(there, back, strict=True))
    return max(back if transfer.collective.spreads else there)


def loss_cap(link: Link, rtt: float, transport: Transport) -> float:
    """Mean bytes per second of one TCP connection under random loss; inf without loss.

    Reno: Mathis et al. 1997, 1.22 / sqrt(p) segments per RTT. Cubic: RFC 8312, equation 6 with C = 0.4 and beta = 0.7,
    and never less than Reno. BBR does not slow down for loss (Cardwell et al. 2016).
    """
    p, size = link.mean_loss, segment(transport.mtu)
    if p == 0 or transport.congestion_control == "bbr":
        return inf
    reno = 1.22 / sqrt(p)
    window = reno if transport.congestion_control == "reno" else max(reno, 1.054 * (rtt / p) ** 0.75)
    return size * window / rtt


@dataclass(frozen=True)
class Chunking:
    """How a collective is cut so that its halves overlap; the exchange cuts by the same numbers.

    `count` per member's share, for the last piece cannot be overlapped and is to be small; each between `smallest` and
    `largest` bytes: below, headers and wake-ups cost more than the overlap gains.

    `most` bounds the pieces of a share, `limit` the messages of a collective that are simulated; beyond, pieces are
    simulated larger than they are, which overlaps a little less.
    """

    count: int = 16
    smallest: int = 1 << 16
    largest: int = 1 << 19
    most: int = 64
    limit: int = 40_000

    def size(self, share: float) -> float:
        """Bytes of a piece of a share of `share` bytes."""
        return min(max(share / self.count, self.smallest), self.largest)

    def of(self, share: float, members: int) -> int:
        """Pieces of a share of `share` bytes in a direct collective among `members`."""
        affordable = self.limit // (2 * members * max(1, members - 1))
        return max(1, min(ceil(share / self.size(share)), self.most, affordable))
