"""Fluid flows that share links max-min fairly (Bertsekas and Gallager 1992, section 6.5.2), in SimPy.

A flow crosses a fixed number of resources: an uplink, a pair cap, a downlink, and perhaps the host. Rates are
recomputed when the set of flows or a capacity changes; between two changes every flow is a straight line, so the
simulation only visits completions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import numpy as np
import simpy
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Drained: TypeAlias = Callable[[Ints], None]

FREE = 0  # the resource of infinite capacity that stands for "no such constraint"
_TINY = 1e-9  # relative tolerance in comparisons of rates and of remaining bytes
# Flows of which so small a share is left when another one ends, end with it: pieces of a collective differ by a byte or
# two, and each would otherwise be an event of its own. At 64 sites that made a hundred times as many.
_TOGETHER = 2e-4


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


class FlowNetwork:
    """All flows under way over resources with capacities in bytes/s."""

    def __init__(self, env: simpy.Environment, capacity: Floats, crossed: int = 3) -> None:
        self.env = env
        self.capacity = capacity.astype(float)
        self._paths: Ints = np.empty((0, crossed), dtype=np.int64)
        self._caps: Floats = np.empty(0)
        self._left: Floats = np.empty(0)
        self._slack: Floats = np.empty(0)  # how few bytes left count as none
        self._together: Floats = np.empty(0)  # how few count as none when another flow ends
        self._rates: Floats = np.empty(0)
        self._owner: Ints = np.empty(0, dtype=np.int64)
        self._item: Ints = np.empty(0, dtype=np.int64)
        self._owners: list[Drained] = []
        self._owner_ids: dict[Drained, int] = {}
        self._updated = env.now
        self._version = 0
        self._dirty = False

    @property
    def active(self) -> int:
        """Flows under way."""
        return len(self._left)

    @property
    def paths(self) -> Ints:
        """(flows, crossed) resources of the flows under way."""
        return self._paths

    def start(self, paths: Ints, sizes: Floats, caps: Floats, drained: Drained, items: Ints | None = None) -> None:
        """Begin flows; `drained` is called with the items of those whose last byte has just left: the caller's numbers
        for them, by default their places here. Flows of one `drained` that end together are one call.
        """
        self._advance()
        owner = self._owner_ids.setdefault(drained, len(self._owners))
        if owner == len(self._owners):
            self._owners.append(drained)
        self._paths = np.concatenate([self._paths, paths])
        self._caps = np.concatenate([self._caps, caps])
        self._left = np.concatenate([self._left, sizes])
        self._slack = np.concatenate([self._slack, 1e-6 + _TINY * sizes])
        self._together = np.concatenate([self._together, 1e-6 + _TOGETHER * sizes])
        self._rates = np.concatenate([self._rates, np.zeros(len(sizes))])
        self._owner = np.concatenate([self._owner, np.full(len(sizes), owner)])
        self._item = np.concatenate([self._item, np.arange(len(sizes)) if items is None else items])
        self._touch()

    def change(self, capacity: Floats, caps: Callable[[Ints, Floats], Floats] | None = None) -> None:
        """New capacities now, and new limits of the flows by caps(paths, limits so far): rates change from here on."""
        self._advance()
        self.capacity = capacity.astype(float)
        if caps is not None:
            self._caps = caps(self._paths, self._caps)
        self._touch()

    def _advance(self) -> None:
        elapsed = self.env.now - self._updated
        if elapsed > 0:
            self._left = self._left - self._rates * elapsed
        self._updated = self.env.now

    def _touch(self) -> None:
        """Recompute rates once for everything that changes at this instant."""
        if not self._dirty:
            self._dirty = True
            self.env.process(self._settle())

    def _settle(self) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(0)
        self._dirty = False
        self._finish()
        if self._dirty:  # a completion started new flows: settle once, with them
            return
        self._rates = max_min(self._paths, self._caps, self.capacity) if self.active else np.empty(0)
        self._version += 1
        if not self.active:
            return
        with np.errstate(divide="ignore"):
            wait = float(np.min((self._left - 0.5 * self._slack) / self._rates))
        if np.isfinite(wait):  # else every flow is cut off until a capacity changes
            self.env.process(self._wake(max(wait, 0.0), self._version))

    def _wake(self, wait: float, version: int) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(wait)
        if version == self._version and not self._dirty:
            self._advance()
            self._touch()

    def _finish(self) -> None:
        self._advance()
        if not (self._left <= self._slack).any():
            return
        over = self._left <= self._together
        owners, items = self._owner[over], self._item[over]
        keep = ~over
        self._paths, self._caps, self._left = self._paths[keep], self._caps[keep], self._left[keep]
        self._slack, self._together, self._rates = self._slack[keep], self._together[keep], self._rates[keep]
        self._owner, self._item = self._owner[keep], self._item[keep]
        for owner in np.unique(owners).tolist():
            self._owners[owner](items[owners == owner])
