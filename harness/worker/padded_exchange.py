"""An exchange that takes a step's filler transfers along. In the trainer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.exchange import Exchange, Handle
from netsim.traffic import Plan, Transfer


class PaddedExchange:
    """An exchange on which the first transfer of a step's phase takes the fillers of that phase along.

    A transfer is done when the fillers beside it are, too.
    """

    def __init__(self, exchange: Exchange, fillers: Plan) -> None:
        self.rank, self.world = exchange.rank, exchange.world
        self._exchange, self._fillers = exchange, fillers
        self._step = 0
        self._under_way: dict[tuple[int, int], list[Handle]] = {}  # of `_step`, by phase and overlap

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        """As `Exchange.start`."""
        return _Together([self._exchange.start(step, transfer, tensor), *self._beside(step, transfer)])

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        """Start all, then wait for all."""
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()

    def _beside(self, step: int, transfer: Transfer) -> list[Handle]:
        if step != self._step:
            self._step, self._under_way = step, {}
        key = transfer.phase, transfer.overlap
        if key not in self._under_way:
            mine = [t for t in self._fillers.at(step) if (t.phase, t.overlap) == key and self.rank in t.members]
            self._under_way[key] = [self._exchange.start(step, t, self._zeros(t)) for t in mine]
        return self._under_way[key]

    def _zeros(self, filler: Transfer) -> Tensor:
        """What the filler carries."""
        return torch.zeros(filler.rows(self.rank) * filler.elements)


class _Together:
    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = handles

    def wait(self) -> None:
        for handle in self._handles:
            handle.wait()
