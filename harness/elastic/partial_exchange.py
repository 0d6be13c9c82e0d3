"""The exchange that a method's worker sees when sites may be missing: the same transfers, among those who are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from algorithms.exchange import Exchange, Handle
from netsim.traffic import Collective, Transfer, among

Scale = Callable[[Transfer, tuple[int, ...]], float]


class PartialExchange:
    """Leaves the absent out of every transfer and scales sums up to the full number, so that a method that divides by
    all members ends with the mean over those who are there. `world` and ranks stay those of the whole run.
    """

    def __init__(self, rank: int, world: int, scale: Scale) -> None:
        self.rank, self.world = rank, world
        self.members = tuple(range(world))
        self._scale = scale
        self._exchange: Exchange | None = None

    def become(self, exchange: Exchange, members: tuple[int, ...]) -> None:
        """From now on over `exchange`, which connects `members`."""
        self._exchange, self.members = exchange, members

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        assert self._exchange is not None
        present = tuple(rank for rank in transfer.members if rank in self.members)
        if present == transfer.members:
            return self._exchange.start(step, transfer, tensor)
        handle = self._exchange.start(step, among(transfer, self.members), tensor)
        sums = transfer.collective is Collective.ALL_REDUCE or (
            transfer.collective is Collective.REDUCE and transfer.root == self.rank
        )
        return _Scaled(handle, tensor, self._scale(transfer, present)) if sums else handle

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()


@dataclass
class _Scaled:
    handle: Handle
    tensor: Tensor
    factor: float

    def wait(self) -> None:
        self.handle.wait()
        self.tensor.mul_(self.factor)
