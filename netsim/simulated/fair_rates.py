"""Max-min fair sharing of links (Bertsekas and Gallager 1992, section 6.5.2).

A flow crosses a fixed number of resources: an uplink, a pair cap, a downlink, and perhaps more.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

FREE = 0  # the resource of infinite capacity that stands for "no such constraint"
_TINY = 1e-9  # relative tolerance in comparisons of rates
_KEPT = 1 << 26  # bytes of rates that are remembered
# Of a flow's share where traffic that does not yield would take all of it: TCP had 0.6 Mbit/s of 14 then.
_LEFT = 0.04


def max_min(paths: Ints, caps: Floats, capacity: Floats) -> Floats:
    """Max-min fair rates, bytes/s.

    paths: (flows, resources crossed) indices.  caps: (flows,) own limit.  capacity: (resources,), entry FREE infinite.
    """
    rates = np.zeros(len(paths))
    open_ = np.arange(len(paths))
    left = capacity.copy()
    while open_.size:
        used = paths[open_]
        count = np.bincount(used.ravel(), minlength=len(capacity))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(count > 0, np.maximum(left, 0) / count, np.inf)
        share[FREE] = np.inf
        level = min(share.min(), caps[open_].min())
        assert np.isfinite(level), "a flow that nothing bounds"
        bound = (share <= level * (1 + _TINY))[used].any(axis=1) | (caps[open_] <= level * (1 + _TINY))
        fixed = open_[bound]
        rates[fixed] = level
        left -= level * np.bincount(used[bound].ravel(), minlength=len(capacity))
        left[FREE] = np.inf
        open_ = open_[~bound]
    return rates


class Routes:
    """What flows may take: each route's resources and own limit, and the rates of any set of routes in use.

    Rates follow from which routes are in use, and a message that ends is followed by the next one of its pair: of
    45,000 changes in 8 steps of DDP on 30 unlike sites, 350 were to another set. So each set is solved once.

    paths: (routes, resources crossed).  caps: (routes,) bytes/s.  capacity: (resources,) bytes/s.
    beside: (routes,) bytes/s of traffic that does not yield. Both have the share of one flow together, and the flow has
    what is left of it.  lanes: flows that a route may carry at once, which share what it has by their limits: lane k of
    route r is number r * lanes + k.
    """

    def __init__(
        self, paths: Ints, caps: Floats, capacity: Floats, beside: Floats | None = None, lanes: int = 1
    ) -> None:
        self._paths, self.lanes = paths, lanes
        self._caps, self._capacity = caps.astype(float), capacity.astype(float)
        self._beside: Floats = np.zeros(len(paths)) if beside is None else beside.astype(float)
        self._slot = np.full(len(paths) * lanes, -1, dtype=np.int64)
        self._lane = np.empty(0, dtype=np.int64)
        self._known: dict[tuple[int, bytes], Floats] = {}

    def become(self, caps: Floats, capacity: Floats, beside: Floats) -> None:
        """Other limits, capacities and traffic beside the flows."""
        now, then = (caps, capacity, beside), (self._caps, self._capacity, self._beside)
        if not all(map(np.array_equal, now, then)):
            self._caps, self._capacity, self._beside = (part.astype(float) for part in now)
            self._known.clear()

    @property
    def slots(self) -> int:
        """How many lanes have been in use."""
        return len(self._lane)

    def slots_of(self, lanes: Ints) -> Ints:
        """Places of the lanes among those that have been in use; of many possible ones few may ever be."""
        found = self._slot[lanes]
        if (new := found < 0).any():
            added = lanes[new]
            self._slot[added] = self.slots + np.arange(len(added))
            self._lane = np.concatenate([self._lane, added])
            found = self._slot[lanes]
        return found

    def routes_of(self, slots: Ints) -> Ints:
        """The routes of the lanes at these places."""
        found: Ints = self._lane[slots] // self.lanes
        return found

    def rates(self, used: Flags, limits: Floats) -> Floats:
        """(slots,) bytes/s of the lanes that are in use, 0 of the others.

        limits: (slots,) bytes/s that each lane may have at most. Where one of a route has none, all share alike.
        """
        rates, limits = np.zeros(len(used)), limits[used]
        routes = self._lane[used] // self.lanes
        if np.isfinite(limits).any():
            routes, route = np.unique(routes, return_inverse=True)
            together: Floats = np.bincount(route, limits).astype(float)
            alike = 1 / np.bincount(route)[route]
            share = np.divide(limits, together[route], out=alike, where=np.isfinite(together)[route])
            rates[used] = self._solved(routes, together)[route] * share
            return rates
        key = len(used), np.packbits(used).tobytes()
        if (known := self._known.get(key)) is None:
            if len(self._known) * used.size * 8 > _KEPT:
                self._known.clear()
            rates[used] = self._solved(routes)
            known = self._known[key] = rates
        return known

    def _solved(self, routes: Ints, limits: Floats | float = np.inf) -> Floats:
        caps = np.minimum(self._caps[routes], limits)
        if not self._beside.any():
            return max_min(self._paths[routes], caps, self._capacity)
        alone = np.setdiff1d(np.flatnonzero(self._beside), routes)  # what does not yield where no flow is
        caps = np.concatenate([caps + self._beside[routes], self._beside[alone]])
        shares = max_min(self._paths[np.concatenate([routes, alone])], caps, self._capacity)[: len(routes)]
        return np.where(self._beside[routes] > 0, np.maximum(shares - self._beside[routes], _LEFT * shares), shares)
