"""A collective as messages and the order between them.

A message goes from one member to another. It is ready when its node `after` has happened, and leaves when those that
were ready before it on the same pair have left; its arrival counts towards its node `into`, which happens when all that
it needs has arrived.
Nodes 0 .. n-1 are "member i is ready", nodes n .. 2n-1 are "member i has its result". A message from a member to
itself costs nothing: it states an order only. Members are counted by their place in the transfer.

Each piece of a share goes on its own, as in the executor, so that the all-gather of the first piece runs while the last
is still being reduced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from netsim.simulated.fair_rates import Floats, Ints
from netsim.traffic import Algorithm, Collective, Transfer


@dataclass(frozen=True, eq=False)
class Messages:
    """Arrays over the messages: places, bytes and nodes. Of messages that are ready together, the first goes first."""

    members: int
    source: Ints
    target: Ints
    size: Floats
    after: Ints
    into: Ints
    nodes: int
    needs: Ints = field(init=False)  # arrivals per node
    starts: tuple[Ints, Ints] = field(init=False)  # messages ordered by `after`, and where each node's begin

    def __post_init__(self) -> None:
        by_node = np.argsort(self.after, kind="stable")
        object.__setattr__(self, "needs", np.bincount(self.into, minlength=self.nodes))
        object.__setattr__(self, "starts", (by_node, np.searchsorted(self.after[by_node], np.arange(self.nodes + 1))))

    def __len__(self) -> int:
        return len(self.size)

    @property
    def payload(self) -> float:
        """Bytes that cross the network."""
        return float(self.size.sum())


@lru_cache(maxsize=256)
def messages_of(
    collective: Collective, algorithm: Algorithm, shares: tuple[int, ...], root: int | None, pieces: int
) -> Messages:
    """The messages of a collective among len(shares) members.

    shares: bytes owned by each member in an all-reduce or reduce-scatter; otherwise the whole size, at every member.
    root: a place.
    """
    members = len(shares)
    if collective is Collective.ALL_REDUCE and algorithm is Algorithm.RING:
        return _ring(shares, pieces)
    if not collective.rooted and algorithm is Algorithm.DIRECT:
        owned = np.array(shares, dtype=float)
    else:
        assert root is not None
        owned = np.zeros(members)
        owned[root] = sum(shares) if collective is Collective.ALL_REDUCE else shares[root]
    return _owned(
        owned,
        pieces,
        gathers=collective.gathers,
        spreads=collective.spreads,
    )


def messages_for(transfer: Transfer, algorithm: Algorithm, pieces: int) -> Messages:
    """The messages of `transfer` carried out by `algorithm`."""
    if transfer.collective in (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER):
        shares = tuple(transfer.wire.bytes_for(end - start) for start, end in transfer.chunks())
    else:
        shares = (transfer.size,) * len(transfer.members)
    root = None if transfer.root is None else transfer.members.index(transfer.root)
    return messages_of(transfer.collective, algorithm, shares, root, pieces)


def _cut(sizes: Floats, pieces: int) -> Floats:
    """(members,) bytes -> (pieces, members) bytes, whole and as equal as can be."""
    bounds = np.floor(np.outer(np.arange(pieces + 1), sizes) / pieces)
    return np.diff(bounds, axis=0)


def _owned(owned: Floats, pieces: int, gathers: bool, spreads: bool) -> Messages:
    """Each owner gathers contributions to its share, adds, and sends the result to everyone: direct has every member
    as an owner, a parameter server one; reduce and gather leave out the second half, broadcast the first."""
    n = len(owned)
    size = _cut(owned, pieces)
    owners = np.flatnonzero(owned) if owned.any() else np.arange(1)
    ready, done = np.arange(n), np.arange(n) + n
    piece, owner, other = (a.ravel() for a in np.meshgrid(np.arange(pieces), owners, np.arange(n), indexing="ij"))
    away = owner != other
    node = 2 * n + np.arange(pieces * n).reshape(pieces, n)  # the owner's piece is summed
    nodes = 2 * n + pieces * n
    parts: list[tuple[Ints, Ints, Floats, Ints, Ints]] = []
    weight = size[piece, owner] * away
    if gathers:
        parts.append((other, owner, weight, ready[other], node[piece, owner]))
    else:
        own = ~away
        parts.append((owner[own], owner[own], weight[own], ready[owner[own]], node[piece, owner][own]))
    if spreads:
        parts.append((owner, other, weight, node[piece, owner], done[other]))
    else:
        own = ~away
        parts.append((owner[own], owner[own], weight[own], node[piece, owner][own], done[owner[own]]))
    everyone = np.arange(n)  # a result needs its owner to have asked for it
    parts.append((everyone, everyone, np.zeros(n), ready, done))
    source, target, sizes, after, into = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Messages(n, source, target, sizes, after, into, nodes)


def _ring(shares: tuple[int, ...], pieces: int) -> Messages:
    """Chunk c starts at place c, is summed around the ring up to place c-1, and goes around once more."""
    n = len(shares)
    size = _cut(np.array(shares, dtype=float), pieces)
    hops = 2 * (n - 1)
    # node[h, p, c]: piece p of chunk c has made h hops; the hop from there is the h-th, from place c + h.
    node = 2 * n + np.arange(hops * pieces * n).reshape(max(hops, 0), pieces, n)
    parts: list[tuple[Ints, Ints, Floats, Ints, Ints]] = []
    hop, piece, chunk = (
        a.ravel() for a in np.meshgrid(np.arange(hops), np.arange(pieces), np.arange(n), indexing="ij")
    )
    if n > 1:
        place, onward = (chunk + hop) % n, (chunk + hop + 1) % n
        next_hop = np.minimum(hop + 1, hops - 1)
        into = np.where(hop + 1 < hops, node[next_hop, piece, chunk], onward + n)
        parts.append((place, onward, size[piece, chunk], node[hop, piece, chunk], into))
        # Every hop needs the readiness of its place (it adds its own numbers), and every result counts at its member.
        parts.append((place, place, np.zeros(len(hop)), place, node[hop, piece, chunk]))
        results = hop >= n - 1
        parts.append(
            (
                place[results],
                place[results],
                np.zeros(results.sum()),
                node[hop, piece, chunk][results],
                place[results] + n,
            )
        )
    everyone = np.arange(n)
    parts.append((everyone, everyone, np.zeros(n), everyone, everyone + n))
    source, target, sizes, after, into = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Messages(n, source, target, sizes, after, into, 2 * n + hops * pieces * n)
