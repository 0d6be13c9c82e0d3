"""Fluid flows over routes that share links max-min fairly, in SimPy.

Rates change when the set of flows or a capacity changes; between two changes every flow is a straight line, so the
simulation only visits completions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import simpy

from netsim.simulated.fair_rates import Floats, Ints, Routes

Drained: TypeAlias = Callable[[Ints], None]

_TINY = 1e-9  # relative tolerance in comparisons of remaining bytes
# Flows of which so small a share is left when another one ends, end with it: pieces of a collective differ by a byte or
# two, and each would otherwise be an event of its own. At 64 sites that made a hundred times as many.
_TOGETHER = 2e-4


class FlowNetwork:
    """All flows under way, at most one on each route."""

    def __init__(self, env: simpy.Environment, routes: Routes) -> None:
        self.env, self.routes = env, routes
        self._used = np.zeros(0, dtype=bool)  # by slot of a route, like all that follows
        self._left, self._rates = np.empty((2, 0))
        self._slack: Floats = np.empty(0)  # how few bytes left count as none
        self._together: Floats = np.empty(0)  # how few count as none when another flow ends
        self._owner, self._item = np.empty((2, 0), dtype=np.int64)
        self._owners: list[Drained] = []
        self._owner_ids: dict[Drained, int] = {}
        self._updated = env.now
        self._version = 0
        self._dirty = False
        self._grow()

    @property
    def under_way(self) -> Ints:
        """Routes that carry a flow."""
        return self.routes.routes_of(np.flatnonzero(self._used))

    @property
    def left(self) -> Floats:
        """Bytes that are left of the flow on each of these routes."""
        self._advance()
        return self._left[self._used]

    def start(self, routes: Ints, sizes: Floats, drained: Drained, items: Ints | None = None) -> None:
        """Begin flows on routes that carry none; `drained` is called with the items of those whose last byte has just
        left: the caller's numbers for them, by default their places here. Flows of one `drained` that end together are
        one call.
        """
        self._advance()
        slots = self.routes.slots_of(routes)
        if self.routes.slots > len(self._used):
            self._grow()
        assert not self._used[slots].any(), "a route that carries a flow already"
        owner = self._owner_ids.setdefault(drained, len(self._owners))
        if owner == len(self._owners):
            self._owners.append(drained)
        self._used[slots] = True
        self._left[slots] = sizes
        self._slack[slots] = 1e-6 + _TINY * sizes
        self._together[slots] = 1e-6 + _TOGETHER * sizes
        self._owner[slots] = owner
        self._item[slots] = np.arange(len(sizes)) if items is None else items
        self._touch()

    def change(self) -> None:
        """The routes have other limits or capacities now: rates change from here on."""
        self._advance()
        self._touch()

    def _grow(self) -> None:
        """Places for routes that are in use for the first time."""
        more = self.routes.slots - len(self._used)
        self._used = np.concatenate([self._used, np.zeros(more, dtype=bool)])
        self._left = np.concatenate([self._left, np.full(more, np.inf)])
        self._rates = np.concatenate([self._rates, np.zeros(more)])
        self._slack = np.concatenate([self._slack, np.zeros(more)])
        self._together = np.concatenate([self._together, np.zeros(more)])
        self._owner = np.concatenate([self._owner, np.zeros(more, dtype=np.int64)])
        self._item = np.concatenate([self._item, np.zeros(more, dtype=np.int64)])

    def _advance(self) -> None:
        elapsed = self.env.now - self._updated
        if elapsed > 0:
            self._left -= self._rates * elapsed
        self._updated = self.env.now

    def _touch(self) -> None:
        """Recompute rates once for everything that changes at this instant."""
        if not self._dirty:
            self._dirty = True
            _call(self.env.timeout(0), self._settle)

    def _settle(self, _: simpy.Event) -> None:
        self._finish()
        self._dirty = False
        self._version += 1
        if not self._used.any():
            return
        self._rates = self.routes.rates(self._used)
        with np.errstate(divide="ignore"):
            wait = float(np.min((self._left - 0.5 * self._slack) / self._rates))
        if np.isfinite(wait):  # else every flow is cut off until a capacity changes
            version = self._version
            _call(self.env.timeout(max(wait, 0.0)), lambda _: self._wake(version))

    def _wake(self, version: int) -> None:
        if version == self._version and not self._dirty:
            self._advance()
            self._touch()

    def _finish(self) -> None:
        if not (self._left <= self._slack).any():
            return
        over = np.flatnonzero(self._left <= self._together)
        owners, items = self._owner[over], self._item[over]
        self._used[over] = False
        self._left[over] = np.inf
        for owner in sorted(set(owners.tolist())):
            self._owners[owner](items[owners == owner])


def _call(event: simpy.Event, function: Callable[[simpy.Event], None]) -> None:
    """When the event happens: a process of its own would be three events."""
    assert event.callbacks is not None
    event.callbacks.append(function)
