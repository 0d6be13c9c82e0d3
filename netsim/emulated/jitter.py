"""Jitter as both engines apply it: the distribution of a one-way delay, cut at zero and kept in order. Pure functions.

A packet that would overtake the one ahead of it waits until that has arrived. Packets that follow one another by s
seconds therefore arrive after the running maximum max over k >= 0 of (D(n-k) - k s) of their independent delays D: the
closer they follow, the longer the mean and the smaller the spread. P(delay <= x) is the product of F(x + k s).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from statistics import NormalDist, fmean, quantiles, stdev

from netsim.emulated.node.impairments import TAIL, pareto_deviate
from netsim.framing import ETHERNET
from netsim.links import Jitter, Link
from netsim.topology import Topology

DRAWS = 512
QUANTILES = 96
_STEPS = 600


def one_way_delays(link: Link, spacing: float) -> tuple[float, ...]:
    """Equally likely one-way delays of the link, ascending, seconds, for packets that follow by `spacing` seconds."""
    return (link.delay,) if link.jitter is None else _delays(link.delay, link.jitter, spacing)


def round_trips(there: Link, back: Link, spacing: float) -> list[float]:
    """Equally likely round-trip times, ascending, seconds."""
    return sorted(a + b for a in one_way_delays(there, spacing) for b in one_way_delays(back, spacing))


def middle_half(times: list[float]) -> float:
    """From the first to the third quartile."""
    if len(times) < 2:
        return 0.0
    low, _, high = quantiles(times, n=4)
    return high - low


def mean_delay(link: Link, spacing: float) -> float:
    """Mean of the one-way delay as it is applied, seconds."""
    return fmean(one_way_delays(link, spacing))


def deviation(link: Link, spacing: float) -> float:
    """Standard deviation of the one-way delay as it is applied, seconds."""
    found = one_way_delays(link, spacing)
    return stdev(found) if len(found) > 1 else 0.0


def frame_spacing(topology: Topology, source: str, target: str) -> float:
    """Seconds between full frames while the pair is saturated."""
    return (topology.transport.mtu + ETHERNET) * 8 / topology.rate(source, target)


def close_delay(topology: Topology, link: Link) -> float:
    """Mean of the one-way delay while the pair is saturated, seconds."""
    return link.delay if link.jitter is None else mean_delay(link, frame_spacing(topology, link.source, link.target))


def unrest(topology: Topology, link: Link) -> float:
    """Seconds by which round trips of packets that follow one another closely are longer than those of lone packets are
    at their best, one in twenty: what a connection takes for a queue."""
    back = topology.link(link.target, link.source)
    if link.jitter is None and back.jitter is None:
        return 0.0
    close = close_delay(topology, link) + close_delay(topology, back)
    spread = math.hypot(deviation(link, math.inf), deviation(back, math.inf))
    return close - topology.rtt(link.source, link.target) - NormalDist().inv_cdf(0.05) * spread


@cache
def _delays(delay: float, jitter: Jitter, spacing: float) -> tuple[float, ...]:
    free = sorted(max(0.0, delay + jitter.spread * one) for one in _draws(jitter.distribution))
    low, high = free[0], free[-1]
    if jitter.reorder or spacing >= high - low:
        return tuple(free)
    step = (high - low) / _STEPS or 1e-9
    grid = [low + step * index for index in range(_STEPS + 1)]
    logs = [_log_share(free, x) for x in grid]
    # log of the product: a sum over k where packets are far apart, an integral over the grid where they are close.
    if spacing > 4 * step:
        totals = [
            sum(_log_share(free, x + k * spacing) for k in range(math.ceil((high - x) / spacing) + 1)) for x in grid
        ]
    else:
        above = list(accumulate(reversed(logs)))[::-1]
        totals = [log + (rest - log) * step / max(spacing, 1e-9) for log, rest in zip(logs, above, strict=True)]
    shares = [math.exp(total) for total in totals]
    return tuple(grid[min(bisect_right(shares, (i + 0.5) / QUANTILES), _STEPS)] for i in range(QUANTILES))


def _log_share(ordered: list[float], x: float) -> float:
    """log of the share of delays that are not above x; the smallest share told apart is half a draw."""
    return math.log(max(bisect_right(ordered, x + 1e-12), 0.5) / len(ordered))


@cache
def _draws(distribution: str) -> tuple[float, ...]:
    """Equally likely draws of `netsim.emulated.node.impairments.deviate`."""
    shares = [(index + 0.5) / DRAWS for index in range(DRAWS)]
    if distribution == "uniform":
        return tuple(2 * share - 1 for share in shares)
    if distribution == "pareto":
        return tuple(pareto_deviate(share) for share in shares)
    normal = NormalDist()
    return tuple(max(-TAIL, min(TAIL, normal.inv_cdf(share))) for share in shares)
