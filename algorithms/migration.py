"""Experts that move between workers: what is sent, which rows follow and restart (FoMoE, 2606.19025, 3.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.experts import Ids, Layout, rows_of
from algorithms.periodic import lossy
from algorithms.placement import Placement
from netsim.traffic import Transfer, WireType


class Migration:
    """From the residents `old` to `new` of one worker, the latter those of `draw`. A transfer's part is its move."""

    def __init__(self, layout: Layout, placement: Placement, draw: int, old: Sequence[Ids], new: Sequence[Ids]) -> None:
        self.layout, self.old, self.new = layout, old, new
        self.experts: list[list[Ids]] = []  # of each move, by layer
        changed: list[set[int]] = [set() for _ in old]
        for _, pairs in placement.moves(draw - 1):
            ids: list[list[int]] = [[] for _ in old]
            for layer, expert in pairs.tolist():
                ids[layer].append(expert)
                changed[layer].add(expert)
            self.experts.append([tuple(found) for found in ids])
        both = list(zip(new, old, changed, strict=True))
        self.came = [tuple(sorted(set(now) - set(had))) for now, had, _ in both]
        self.shared = [tuple(e for e in now if e in had and e in moved) for now, had, moved in both]  # with newcomers

    def outgoing(self, transfer: Transfer, tensors: Sequence[Tensor], sends: bool) -> Tensor:
        """What the root sends, before residents change; for receivers an empty buffer."""
        if sends:
            return self.layout.gather(tensors, self._moved(transfer), self.old)
        return tensors[0].new_empty(transfer.elements)

    def incoming(self, transfer: Transfer, tensors: Sequence[Tensor], buffer: Tensor) -> None:
        """Place what was received, after residents have changed."""
        self.layout.scatter(tensors, buffer, self._moved(transfer), self.new)

    def follow(self, banks: Sequence[Sequence[Tensor]]) -> None:
        """In each list of tensors, rows of experts that stay move to their new places; all others become zero."""
        for tensors in banks:
            for stack, had, holds in zip(self.layout.stacks, self.old, self.new, strict=True):
                stayed = tuple(expert for expert in holds if expert in had)
                for index in stack:
                    kept = tensors[index][rows_of(stayed, had)]
                    tensors[index].zero_()
                    tensors[index][rows_of(stayed, holds)] = kept

    def round_like(self, wire: WireType, tensors: Sequence[Tensor]) -> None:
        """Round the copies of moved experts that stay as the wire rounds those that travel: holders stay identical."""
        if lossy(wire) and tensors:
            coarse = torch.bfloat16 if wire is WireType.BF16 else torch.float16
            flat = self.layout.gather(tensors, self.shared, self.new)
            self.layout.scatter(tensors, flat.to(coarse).to(flat.dtype), self.shared, self.new)

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """Zero the rows of moved experts that stay, as they are at the newcomers."""
        if tensors:
            flat = self.layout.gather(tensors, self.shared, self.new)
            self.layout.scatter(tensors, flat.zero_(), self.shared, self.new)

    def _moved(self, transfer: Transfer) -> list[Ids]:
        _, move = transfer.part
        assert move is not None
        return self.experts[move]
