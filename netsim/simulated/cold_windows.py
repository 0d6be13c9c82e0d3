"""Windows of connections that begin in slow start, round trip by round trip, where links lose no packets.

A window doubles each round trip until it fills its links. Where others fill them first, what they have too much of in
flight stands in a queue, and cubic leaves slow start when it sees the delay of that queue (HyStart: Ha and Rhee 2011;
RFC 9406, section 4.2, with the thresholds of Linux's `tcp_cubic.c`). Then the window grows by the cubic function of the
time since (RFC 9438, section 4.2), in Linux by at least a twentieth and at most half a round trip, before a first loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsim.simulated.fair_rates import Floats, Ints
from netsim.simulated.lossy_connections import CUBIC

_LEAST, _MOST, _SHARE = 4e-3, 16e-3, 1 / 8  # seconds of queue that end slow start, between them this share of the RTT
_LEAST_WINDOW = 16  # segments, below which nothing ends it
_SEEN = 16  # segments by which a window has grown when the delay is seen: of eight acknowledgements of two each
_LEAST_RISE, _MOST_RISE = 1 / 20, 1 / 2  # of a window, in a round trip


@dataclass
class ColdWindows:
    """Of every pair of sites, (sites, sites).

    size: bytes in flight that its connections have grown to.  left: their size when they left slow start; inf before.
    since: seconds of sending since then.
    """

    size: Floats
    left: Floats
    since: Floats

    @classmethod
    def unlimited(cls, sites: int) -> ColdWindows:
        """Windows that limit nothing."""
        return cls(np.full((sites, sites), np.inf), np.full((sites, sites), np.inf), np.zeros((sites, sites)))

    def copy(self) -> ColdWindows:
        return ColdWindows(self.size.copy(), self.left.copy(), self.since.copy())

    def state(self) -> bytes:
        """Equal windows behave equally."""
        return self.size.tobytes() + self.left.tobytes() + self.since.tobytes()

    def begin_again(self, pairs: Ints, size: Floats) -> None:
        """Slow start from so many bytes. pairs: counted source by source."""
        self.size.flat[pairs], self.left.flat[pairs], self.since.flat[pairs] = size, np.inf, 0.0

    def grow(self, at: tuple[Ints, Ints], rtt: Floats, queue: Floats, segments: Floats) -> None:
        """A round trip in which these pairs sent all that their windows let them.

        queue: seconds that packets of each waited, or seemed to wait, in a queue.  segments: bytes of one segment of
        each connection of it.
        """
        size, left = self.size[at], self.left[at]
        slow = np.isinf(left)
        ends = slow & (queue > np.clip(rtt * _SHARE, _LEAST, _MOST)) & (size >= _LEAST_WINDOW * segments)
        seen = size + np.minimum(size, _SEEN * segments)
        since = self.since[at] + ~slow * (rtt + queue)
        with np.errstate(invalid="ignore"):
            rise = left + CUBIC * segments * (since + rtt) ** 3 - size
        steady = size + np.clip(rise, _LEAST_RISE * size, _MOST_RISE * size)
        self.size[at] = np.where(ends, seen, np.where(slow, 2 * size, steady))
        self.left[at] = np.where(ends, seen, left)
        self.since[at] = since


def standing(window: Floats, rtt: Floats, most: Floats, capacity: float) -> float:
    """Seconds of queue before a link that flows share, each with so many bytes in flight and at most so many bytes/s
    elsewhere: q such that the sum of window / (rtt + q) is the capacity."""

    def excess(queue: float) -> float:
        with np.errstate(divide="ignore"):
            return float(np.minimum(window / (rtt + queue), most).sum()) - capacity

    if not np.isfinite(capacity) or capacity <= 0 or excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(window.sum()) / capacity
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
