"""What a method needs of the network: an `Exchange` that carries out the transfers of its plan.

Here is the interface, and the exchange of workers that are threads of one process (no network): the reference for
golden trajectories, exactness tests and benchmarks. The exchange over the emulated WAN is `harness.transport`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from algorithms.wire import decode, encode
from netsim.errors import PeerError
from netsim.traffic import Collective, Transfer


class Handle(Protocol):
    """A transfer under way."""

    def wait(self) -> None:
        """Block until the tensor holds the result. Raises PeerError when a member fails or the timeout passes."""


class Exchange(Protocol):
    """Carries out transfers for one worker. Sums, never means: the method divides.

    Every member must start the same transfers in the same order; `step` tells rounds apart.
    """

    rank: int
    world: int

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        """Begin `transfer` on `tensor` (contiguous, `transfer.elements` numbers), which receives the result in place.

        ALL_REDUCE leaves the members' sum, the same bits at every member: contributions are encoded in the wire type,
        decoded and added in rank order in at least fp32, and the sum is encoded and decoded once more.
        REDUCE leaves the sum at the root (not encoded again) and the other members' tensors as they were.
        BROADCAST leaves the root's values, encoded and decoded, at every member, the root included.
        GATHER needs at the root a tensor of (members, elements), whose own row the root has filled in.
        SEND is a BROADCAST to one.
        ALL_GATHER needs a tensor of (members, elements) with the member's own row filled in; all end with the same
        bits, so the own row is encoded and decoded, too.
        REDUCE_SCATTER leaves in the member's own share (`transfer.chunks`) the sum, not encoded again; the rest stays.
        ALL_TO_ALL needs (members, elements) with a row for each member, which is replaced by the row of that member
        for this one; the own row stays.
        The transfer does not begin before its share `transfer.ready` of the paced step.
        """

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        """Start all, then wait for all."""


class LocalExchange:
    """One member of a `local_group`: workers are threads that meet at a barrier."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        self.rank, self.world = rank, meeting.world
        self._meeting = meeting

    @property
    def group_payload_bytes(self) -> int:
        """Payload bytes of all members' transfers so far."""
        return self._meeting.payload_bytes

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        assert tensor.is_contiguous()
        key = (step, transfer.name, transfer.phase)
        return _LocalHandle(self._meeting.bring(key, transfer, self.rank, tensor), self._meeting.timeout)

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()


def local_group(world: int, timeout: float = 60.0) -> list[LocalExchange]:
    """Exchanges of `world` workers that are threads of this process."""
    meeting = _Meeting(world, timeout)
    return [LocalExchange(rank, meeting) for rank in range(world)]


class _Gathering:
    """The tensors brought to one transfer so far."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.done = threading.Event()


class _Meeting:
    def __init__(self, world: int, timeout: float) -> None:
        self.world, self.timeout = world, timeout
        self.payload_bytes = 0
        self._lock = threading.Lock()
        self._open: dict[tuple[int, str, int], _Gathering] = {}

    def bring(self, key: tuple[int, str, int], transfer: Transfer, rank: int, tensor: Tensor) -> _Gathering:
        with self._lock:
            gathering = self._open.setdefault(key, _Gathering())
            assert rank not in gathering.tensors, f"{key} started twice by rank {rank}"
            gathering.tensors[rank] = tensor
            complete = len(gathering.tensors) == len(transfer.members)
            if complete:
                del self._open[key]
                self.payload_bytes += transfer.payload_bytes
        if complete:
            _carry_out(transfer, gathering.tensors)
            gathering.done.set()
        return gathering


class _LocalHandle:
    def __init__(self, gathering: _Gathering, timeout: float) -> None:
        self._gathering, self._timeout = gathering, timeout

    def wait(self) -> None:
        if not self._gathering.done.wait(self._timeout):
            raise PeerError(f"only ranks {sorted(self._gathering.tensors)} came within {self._timeout} s")


@torch.no_grad()
def _carry_out(transfer: Transfer, tensors: dict[int, Tensor]) -> None:
    """The semantics of `Exchange.start`, on all members' tensors at once."""
    wire, elements = transfer.wire, transfer.elements

    def sent(tensor: Tensor) -> Tensor:
        return decode(encode(tensor.reshape(-1), wire), wire, elements, tensor.dtype)

    if transfer.collective in (Collective.ALL_REDUCE, Collective.REDUCE):
        total = sent(tensors[transfer.members[0]])
        total = total if total.dtype == torch.float64 else total.float()
        for rank in transfer.members[1:]:
            total = total + sent(tensors[rank])
        if transfer.collective is Collective.REDUCE:
            assert transfer.root is not None
            tensors[transfer.root].view(-1).copy_(total)
            return
        result = sent(total)
        for tensor in tensors.values():
            tensor.view(-1).copy_(result)
    elif transfer.collective is Collective.REDUCE_SCATTER:
        parts = {}
        for rank, (start, end) in zip(transfer.members, transfer.chunks(), strict=True):
            own = [tensors[member].view(-1)[start:end] for member in transfer.members]
            shares = [decode(encode(part, wire), wire, end - start, part.dtype) for part in own]
            total = shares[0] if shares[0].dtype == torch.float64 else shares[0].float()
            for share in shares[1:]:
                total = total + share
            parts[rank] = (start, end, total)
        for rank, (start, end, total) in parts.items():
            tensors[rank].view(-1)[start:end].copy_(total)
    elif transfer.collective.in_rows:
        _exchange_rows(transfer, tensors, sent)
    elif transfer.collective in (Collective.BROADCAST, Collective.SEND):
        assert transfer.root is not None
        result = sent(tensors[transfer.root])
        for tensor in tensors.values():
            tensor.view(-1).copy_(result)
    else:
        assert transfer.root is not None
        rows = tensors[transfer.root].view(len(transfer.members), elements)
        for place, rank in enumerate(transfer.members):
            if rank != transfer.root:
                rows[place].copy_(sent(tensors[rank]))


def _exchange_rows(transfer: Transfer, tensors: dict[int, Tensor], sent: Callable[[Tensor], Tensor]) -> None:
    """ALL_GATHER and ALL_TO_ALL, whose tensors have a row for each member."""
    count = len(transfer.members)
    views = {rank: tensor.view(count, transfer.elements) for rank, tensor in tensors.items()}
    before = {rank: view.clone() for rank, view in views.items()}
    for place, rank in enumerate(transfer.members):
        for other, member in enumerate(transfer.members):
            if transfer.collective is Collective.ALL_GATHER:
                views[member][place].copy_(sent(before[rank][place]))
            elif rank != member:
                views[member][place].copy_(sent(before[rank][other]))
