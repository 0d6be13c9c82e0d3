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
    """All flows under way, at most one on each lane of a route."""

    def __init__(self, env: simpy.Environment, routes: Routes) -> None:
        self.env, self.routes = env, routes
        self._used = np.zeros(0, dtype=bool)  # by slot of a lane, like all that follows
        self._left, self._rates = np.empty((2, 0))
        self._slack: Floats = np.empty(0)  # how few bytes left count as none
        self._together: Floats = np.empty(0)  # how few count as none when another flow ends
        self._since: Floats = np.empty(0)  # when its sender last heard from the other end
        self._limits: Floats = np.empty(0)  # bytes/s that each may have at most
        self._owner, self._item = np.empty((2, 0), dtype=np.int64)
        self._owners: list[Drained] = []
        self._owner_ids: dict[Drained, int] = {}
        self._updated = env.now
        self._version = 0
        self._dirty = False
        self._grow()

    @property
    def under_way(self) -> Ints:
        """The route of every flow."""
        return self.routes.routes_of(np.flatnonzero(self._used))

    @property
    def left(self) -> Floats:
        """Bytes that are left of each of these flows."""
        self._advance()
        return self._left[self._used]

    def start(
        self, lanes: Ints, sizes: Floats, drained: Drained, items: Ints | None = None, limits: Floats | float = np.inf
    ) -> None:
        """Begin flows on lanes that carry none; `drained` is called with the items of those whose last byte has just
        left: the caller's numbers for them, by default their places here. Flows of one `drained` that end together are
        one call.

        limits: bytes/s that each may have at most; inf where no window holds it.
        """
        self._advance()
        slots = self.routes.slots_of(lanes)
        if self.routes.slots > len(self._used):
            self._grow()
        assert not self._used[slots].any(), "a lane that carries a flow already"
        owner = self._owner_ids.setdefault(drained, len(self._owners))
        if owner == len(self._owners):
            self._owners.append(drained)
        self._used[slots] = True
        self._left[slots] = sizes
        self._limits[slots], self._since[slots] = limits, self.env.now
        self._slack[slots] = 1e-6 + _TINY * sizes
        self._together[slots] = 1e-6 + _TOGETHER * sizes
        self._owner[slots] = owner
        self._item[slots] = np.arange(len(sizes)) if items is None else items
        self._touch()

    def change(self) -> None:
        """The routes have other limits or capacities now: rates change from here on."""
        self._advance()
        self._touch()

    def silence(self, routes: Ints, delays: Floats) -> None:
        """These routes are cut: who sends there hears nothing any more from so many seconds after now."""
        for route, delay in zip(routes.tolist(), delays.tolist(), strict=True):
            self._since[self._on(route)] = self.env.now + delay

    def silent(self, routes: Ints) -> tuple[Ints, Floats]:
        """Those of these routes that carry flows, and since when their senders have heard nothing."""
        since = {route: self._since[on].min() for route in routes.tolist() if (on := self._on(route)).size}
        return np.array(list(since), dtype=np.int64), np.array(list(since.values()), dtype=float)

    def _on(self, route: int) -> Ints:
        """Slots of the flows on a route."""
        used = np.flatnonzero(self._used)
        found: Ints = used[self.routes.routes_of(used) == route]
        return found

    def _grow(self) -> None:
        """Places for lanes that are in use for the first time."""
        more = self.routes.slots - len(self._used)
        self._used = np.concatenate([self._used, np.zeros(more, dtype=bool)])
        self._left = np.concatenate([self._left, np.full(more, np.inf)])
        self._rates = np.concatenate([self._rates, np.zeros(more)])
        self._limits = np.concatenate([self._limits, np.full(more, np.inf)])
        self._since = np.concatenate([self._since, np.zeros(more)])
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
        self._rates = self.routes.rates(self._used, self._limits)
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
