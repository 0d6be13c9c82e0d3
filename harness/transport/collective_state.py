"""The collectives, without the network: what to send when, and what to do with what arrives.

A transfer is cut into pieces. `Owned` gives each piece an owner, who gathers the members' contributions, adds them in
rank order and sends the result to everyone; the pieces flow on their own, so the all-gather of the first piece runs
while the last is still being reduced. With the pieces' ownership spread over the members this is the direct
reduce-scatter + all-gather; with one owner it is the parameter server; with one half left out it is reduce, broadcast
or gather. `Ring` passes partial sums from neighbour to neighbour.

Both are driven by the exchange: `begin` and `arrived` say which parcels to send, `room` says where a body belongs
(the tensor itself where the wire type is the tensor's own: no copy between kernel and tensor).

The bits are those of `algorithms.exchange.LocalExchange`, except for the ring, which adds in ring order and rounds
the partial sum to the wire type at every hop; its members still agree with each other to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor

from algorithms.wire import decode, encode
from harness.transport.buffers import Body, Pool, body_of
from harness.transport.frames import Kind
from netsim.collectives import Chunking
from netsim.errors import PeerError
from netsim.traffic import BLOCK, Algorithm, Collective, Transfer

_SAME = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "uint8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Numbers [start, end) of the transfer; `place` is the owner's (ring: the chunk's) place among the members."""

    place: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """A body to send, encoded only when a connection is free to take it."""

    target: int
    kind: Kind
    piece: int
    size: int
    body: Callable[[], Body]


def pieces_of(transfer: Transfer, algorithm: Algorithm) -> tuple[Piece, ...]:
    """The pieces of a transfer, round robin over the owners, as equal as blocks allow: a phase waits for the largest.

    Every piece starts on a block, so its size adds up.
    """
    members = transfer.members
    if transfer.collective.in_rows:
        chunks = ((0, transfer.elements),) * len(members)  # of the row of each
    elif not transfer.collective.rooted and algorithm is not Algorithm.PS:
        chunks = transfer.chunks()
    else:
        assert transfer.root is not None
        chunks = tuple((0, transfer.elements if rank == transfer.root else 0) for rank in members)
    unit = BLOCK if transfer.wire.blocked else 2
    largest = max(end - start for start, end in chunks)
    size = int(Chunking().size(transfer.wire.bytes_for(largest)))
    most = max(1, size * 8 // transfer.wire.bits // unit) * unit
    parts = -(-largest // most)
    numbers = max(1, -(-largest // (max(parts, 1) * unit))) * unit
    return tuple(
        Piece(place, low, min(low + numbers, end))
        for part in range(parts)
        for place, (start, end) in enumerate(chunks)
        if (low := start + part * numbers) < end
    )


def carrier(rank: int, transfer: Transfer, algorithm: Algorithm, tensor: Tensor, pool: Pool) -> CollectiveState:
    """This rank's part in `transfer`, to be carried out by `algorithm` if it is an all-reduce."""
    assert algorithm is not Algorithm.AUTO
    assert tensor.is_contiguous()
    assert tensor.numel() == transfer.rows(rank) * transfer.elements, (tensor.shape, transfer)
    ring = transfer.collective is Collective.ALL_REDUCE and algorithm is Algorithm.RING and len(transfer.members) > 1
    return (Ring if ring else Owned)(rank, transfer, algorithm, tensor, pool)


class CollectiveState(ABC):
    """One member's part in one transfer."""

    def __init__(self, rank: int, transfer: Transfer, algorithm: Algorithm, tensor: Tensor, pool: Pool) -> None:
        self.rank, self.transfer, self.pool = rank, transfer, pool
        self.tensor = tensor.detach().view(-1)
        self.place = transfer.members.index(rank)
        self.others = tuple(member for member in transfer.members if member != rank)
        self.pieces = pieces_of(transfer, algorithm)
        self._in_place = _SAME.get(transfer.wire) == tensor.dtype
        # In an all-to-all what arrives takes the place of what has yet to leave.
        self._outgoing = self.tensor.clone() if transfer.collective is Collective.ALL_TO_ALL else self.tensor
        self._departed: set[int] = set()  # pieces of which our numbers have left
        self._expected: set[tuple[Kind, int, int]] = set()  # (kind, source, piece) still to come

    @property
    def complete(self) -> bool:
        """Whether everything has arrived that had to."""
        return not self._expected

    def owing(self) -> set[int]:
        """The members that we wait for: those that owe us their own numbers, else those that owe us results."""
        first_hand = {source for kind, source, _ in self._expected if kind is not Kind.RESULT}
        return first_hand or {source for _, source, _ in self._expected}

    def expects(self, member: int) -> bool:
        """Whether `member` has yet to send us something."""
        return any(source == member for _, source, _ in self._expected)

    def on_sent(self, parcel: Send) -> None:
        """The body of `parcel` has been handed to the kernel."""
        self._departed.add(parcel.piece)

    def room(self, kind: Kind, source: int, piece: int, length: int) -> Body:
        """Where to receive a body of `length` bytes. PeerError if it must not come."""
        if (kind, source, piece) not in self._expected:
            raise PeerError(f"sent {kind.name} {piece} of {self.transfer.name!r} uncalled for", corrupt=True)
        if length != (size := self._size(piece)):
            why = f"sent {length} bytes as {kind.name} {piece} of {self.transfer.name!r}, which has {size}"
            raise PeerError(why, corrupt=True)
        # A result may overwrite our numbers once they have left; it cannot honestly come earlier.
        if kind is Kind.RESULT and self._in_place and (piece in self._departed or not self._contributes(piece)):
            return body_of(self._own(piece))
        return self.pool.take(length)

    def arrived(self, kind: Kind, source: int, piece: int, body: Body) -> list[Send]:
        """Take in a whole body, once; what to send in consequence."""
        self._expected.remove((kind, source, piece))
        return self._take_in(kind, source, piece, body)

    @abstractmethod
    def begin(self) -> list[Send]:
        """What to send at once."""

    @abstractmethod
    def _take_in(self, kind: Kind, source: int, piece: int, body: Body) -> list[Send]: ...

    @abstractmethod
    def _contributes(self, piece: int) -> bool:
        """Whether our own numbers of a piece that we get a result for are to be sent."""

    def _count(self, piece: int) -> int:
        return self.pieces[piece].end - self.pieces[piece].start

    def _size(self, piece: int) -> int:
        return self.transfer.wire.bytes_for(self._count(piece))

    def _own(self, piece: int) -> Tensor:
        return self._part(self.tensor, self.pieces[piece])

    def _part(self, tensor: Tensor, part: Piece) -> Tensor:
        """Where a piece lies: in the row of its owner, where there is one for each."""
        row = part.place * self.transfer.elements if self.transfer.collective.in_rows else 0
        return tensor[row + part.start : row + part.end]

    def _encoded(self, piece: int) -> Body:
        return Body(encode(self._part(self._outgoing, self.pieces[piece]), self.transfer.wire))

    def _decoded(self, body: Body, piece: int, dtype: torch.dtype) -> Tensor:
        return decode(body.data, self.transfer.wire, self._count(piece), dtype)

    def _store(self, piece: int, body: Body) -> None:
        """A result into the tensor, unless it was received there."""
        if body.scratch:
            self._own(piece).copy_(self._decoded(body, piece, self.tensor.dtype))

    def _publish(self, piece: int, total: Tensor) -> Body:
        """Encode a result, and keep what the others will decode from it."""
        own = self._own(piece)
        if self._in_place:
            return body_of(own.copy_(total))
        body = Body(encode(total, self.transfer.wire))
        own.copy_(self._decoded(body, piece, total.dtype))
        return body


class Owned(CollectiveState):
    """Every piece has an owner: all but the ring."""

    def __init__(self, rank: int, transfer: Transfer, algorithm: Algorithm, tensor: Tensor, pool: Pool) -> None:
        super().__init__(rank, transfer, algorithm, tensor, pool)
        self._gathers, self._spreads = transfer.collective.gathers, transfer.collective.spreads
        self._sums: dict[int, _Sum] = {}
        for index, piece in enumerate(self.pieces):
            owner = transfer.members[piece.place]
            if owner == rank and self._gathers:
                self._expected.update((Kind.CONTRIBUTION, member, index) for member in self.others)
            elif owner != rank and self._spreads:
                self._expected.add((Kind.RESULT, owner, index))

    def begin(self) -> list[Send]:
        parcels: list[Send] = []
        for index, piece in enumerate(self.pieces):
            if piece.place != self.place:
                if self._gathers:
                    owner = self.transfer.members[piece.place]
                    parcels.append(
                        Send(owner, Kind.CONTRIBUTION, index, self._size(index), partial(self._encoded, index))
                    )
            elif not self._gathers:
                publish = cache(partial(self._publish, index, self._own(index)))
                if not self.others:
                    publish()
                parcels += self._results(index, publish)
            elif self.transfer.collective.sums:
                parcels += self._add(index, self.place, self._encoded(index))
        return parcels

    def _contributes(self, piece: int) -> bool:
        return self._gathers

    def _take_in(self, kind: Kind, source: int, piece: int, body: Body) -> list[Send]:
        place = self.transfer.members.index(source)
        if kind is Kind.RESULT:
            self._store(piece, body)
        elif not self.transfer.collective.sums:
            part = self.pieces[piece]
            row = self.tensor.view(len(self.transfer.members), self.transfer.elements)[place]
            row[part.start : part.end].copy_(self._decoded(body, piece, row.dtype))
        else:
            return self._add(piece, place, body)
        self.pool.give(body)
        return []

    def _add(self, piece: int, place: int, body: Body) -> list[Send]:
        """One more contribution to a piece of ours: add as far as rank order allows."""
        total = self._sums.setdefault(piece, _Sum())
        total.waiting[place] = body
        while (ready := total.waiting.pop(len(total.used), None)) is not None:
            numbers = self._decoded(ready, piece, self.tensor.dtype)
            if not total.used:
                # May share memory with the received body or with our tensor, whose share nobody else reads.
                total.value = numbers if numbers.dtype == torch.float64 else numbers.float()
            else:
                total.value.add_(numbers)
            total.used.append(ready)
        if len(total.used) < len(self.transfer.members):
            return []
        del self._sums[piece]
        parcels: list[Send] = []
        if self._spreads:
            result = self._publish(piece, total.value)
            parcels = self._results(piece, lambda: result)
        else:
            self._own(piece).copy_(total.value)
        for used in total.used:
            self.pool.give(used)
        return parcels

    def _results(self, piece: int, body: Callable[[], Body]) -> list[Send]:
        return [Send(member, Kind.RESULT, piece, self._size(piece), body) for member in self.others]


@dataclass(slots=True)
class _Sum:
    """A piece on its way to its sum. Contributions are added in rank order; those too early wait."""

    waiting: dict[int, Body] = field(default_factory=dict)
    used: list[Body] = field(default_factory=list)
    value: Tensor = field(default_factory=lambda: torch.empty(0))


class Ring(CollectiveState):
    """Chunk c starts at place c, is summed around the ring up to place c-1, and goes around once more."""

    def __init__(self, rank: int, transfer: Transfer, algorithm: Algorithm, tensor: Tensor, pool: Pool) -> None:
        super().__init__(rank, transfer, algorithm, tensor, pool)
        members, self._size_of_ring = transfer.members, len(transfer.members)
        self._before, self._after = members[self.place - 1], members[(self.place + 1) % self._size_of_ring]
        for index, piece in enumerate(self.pieces):
            if piece.place != self.place:
                self._expected.add((Kind.PARTIAL, self._before, index))
            if piece.place != self._ahead(1):
                self._expected.add((Kind.RESULT, self._before, index))

    def _ahead(self, places: int) -> int:
        return (self.place + places) % self._size_of_ring

    def begin(self) -> list[Send]:
        return [
            Send(self._after, Kind.PARTIAL, index, self._size(index), partial(self._encoded, index))
            for index, piece in enumerate(self.pieces)
            if piece.place == self.place
        ]

    def _contributes(self, piece: int) -> bool:
        return True

    def _take_in(self, kind: Kind, source: int, piece: int, body: Body) -> list[Send]:
        chunk = self.pieces[piece].place
        if kind is Kind.RESULT:
            self._store(piece, body)
            return [] if chunk == self._ahead(2) else [self._onward(Kind.RESULT, piece, body)]
        numbers = self._decoded(body, piece, self.tensor.dtype)
        total = (numbers if numbers.dtype == torch.float64 else numbers.float()) + self._own(piece)
        self.pool.give(body)
        if chunk == self._ahead(1):
            return [self._onward(Kind.RESULT, piece, self._publish(piece, total))]
        return [self._onward(Kind.PARTIAL, piece, Body(encode(total, self.transfer.wire)))]

    def _onward(self, kind: Kind, piece: int, body: Body) -> Send:
        return Send(self._after, kind, piece, self._size(piece), lambda: body)
