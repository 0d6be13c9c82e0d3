"""Which worker holds which experts (FoMoE, arXiv 2606.19025, section 3.3).

Every expert is on exactly O_e of M workers and every worker holds N_le = O_e N_e / M experts of each layer. The holders
of an expert are a window of O_e consecutive workers (cyclic), so there are at most M sets of holders, however many
experts and layers: all experts with the same holders travel as one transfer.

fixed   position p of each layer is held by the workers m with p in [floor(m N_e / M), ... + N_le), expert p at p.
random  the same windows over a permutation of the experts, drawn anew for each layer and each draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netsim.errors import InputError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Move:
    """Experts that `root` sends to workers which did not hold them. experts[layer]: how many."""

    root: int
    newcomers: tuple[int, ...]
    experts: int


@dataclass(frozen=True)
class Placement:
    """`draws` random maps are drawn and then repeat, so that a plan stays finite; 1 draw in a fixed placement."""

    layers: int
    experts: int
    sites: int
    replication: int
    draws: int = 1
    seed: int | None = None  # None: fixed

    def __post_init__(self) -> None:
        if not 1 <= self.replication <= self.sites:
            allowed = f"from 1 to the {self.sites} sites"
            raise InputError("fomoe", "replication", self.replication, allowed)
        if self.replication * self.experts % self.sites:
            fitting = [r for r in range(1, self.sites + 1) if r * self.experts % self.sites == 0]
            allowed = f"replication x {self.experts} experts a multiple of {self.sites} sites: one of {fitting}"
            raise InputError("fomoe", "replication", self.replication, allowed)

    @property
    def resident(self) -> int:
        """N_le, experts of a layer at each worker."""
        return self.replication * self.experts // self.sites

    @cached_property
    def windows(self) -> tuple[tuple[int, ...], ...]:
        """The holders of each position, ascending."""
        held = [set(self._positions(worker)) for worker in range(self.sites)]
        return tuple(tuple(m for m in range(self.sites) if p in held[m]) for p in range(self.experts))

    @cached_property
    def groups(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Positions of a layer by their holders, in order of the first position."""
        found: dict[tuple[int, ...], list[int]] = {}
        for position, holders in enumerate(self.windows):
            found.setdefault(holders, []).append(position)
        return {holders: tuple(positions) for holders, positions in found.items()}

    def order(self, draw: int) -> Ids:
        """(layers, experts): the expert at each position, in this draw."""
        if self.seed is None:
            return np.broadcast_to(np.arange(self.experts), (self.layers, self.experts))
        rng = np.random.default_rng((self.seed, draw % self.draws))
        return rng.permuted(np.tile(np.arange(self.experts), (self.layers, 1)), axis=1)

    def residents(self, worker: int, draw: int) -> tuple[tuple[int, ...], ...]:
        """Expert ids by layer, ascending."""
        mine = np.sort(self.order(draw)[:, self._positions(worker)], axis=1)
        return tuple(tuple(row) for row in mine.tolist())

    def members(self, holders: tuple[int, ...], draw: int) -> tuple[tuple[int, ...], ...]:
        """Expert ids by layer, ascending, of the group that these workers hold."""
        mine = np.sort(self.order(draw)[:, list(self.groups[holders])], axis=1)
        return tuple(tuple(row) for row in mine.tolist())

    def moves(self, draw: int) -> Iterator[tuple[Move, Ids]]:
        """From `draw` to the next, what is sent: (experts, 2) pairs of layer and expert id, ascending.

        An expert goes from one of its old holders to all new holders that lack it.
        """
        before, after = self._group_of(draw), self._group_of(draw + 1)
        names = list(self.groups)
        layer, expert = np.divmod(np.arange(self.layers * self.experts), self.experts)
        key = before * len(names) + after
        arrangement = np.argsort(key, kind="stable")
        bounds = np.flatnonzero(np.diff(key[arrangement], prepend=-1))
        for rows in np.split(arrangement, bounds[1:]):
            old, new = (names[int(index)] for index in divmod(int(key[rows[0]]), len(names)))
            newcomers = tuple(sorted(set(new) - set(old)))
            if newcomers:
                root = old[int(key[rows[0]]) % len(old)]  # some old holder, the work spread over them
                yield Move(root, newcomers, len(rows)), np.stack([layer[rows], expert[rows]], axis=1)

    def _group_of(self, draw: int) -> Ids:
        """(layers x experts,): the index of the group that holds each expert."""
        place = {position: index for index, positions in enumerate(self.groups.values()) for position in positions}
        groups = np.array([place[position] for position in range(self.experts)])
        found = np.empty((self.layers, self.experts), dtype=np.int64)
        np.put_along_axis(found, self.order(draw), np.broadcast_to(groups, found.shape), axis=1)
        return found.reshape(-1)

    def _positions(self, worker: int) -> list[int]:
        start = worker * self.experts // self.sites
        return [(start + offset) % self.experts for offset in range(self.resident)]


def source_for(
    holders: tuple[int, ...], behind: tuple[int, ...], present: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Of the experts that `holders` hold: who sends them to which of those behind; None if nobody must or can."""
    takers = tuple(rank for rank in holders if rank in behind)
    source = next((rank for rank in holders if rank in present and rank not in behind), None)
    return (source, takers) if takers and source is not None else None
