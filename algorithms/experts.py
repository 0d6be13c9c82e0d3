"""Where experts lie in a worker's tensors: rows of stacked parameters, gathered into transfers and scattered back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from algorithms.averaging import full_precision
from algorithms.exchange import Exchange
from algorithms.inner import flatten
from algorithms.placement import Placement
from algorithms.shape import ModelShape, Role
from netsim.traffic import Transfer

Ids = tuple[int, ...]  # experts of one layer, ascending


class RoutingReport(Protocol):
    """What one layer's router did; see `harness.worker.model.Routing`."""

    @property
    def layer(self) -> int: ...

    @property
    def load(self) -> tuple[float, ...]: ...

    @property
    def entropy(self) -> float: ...

    @property
    def ghost_share(self) -> float: ...


class ExpertModel(Protocol):
    """What is asked of a model of experts beside its parameters; see `harness.worker.model.Transformer`."""

    def set_residents(self, layer: int, experts: Ids) -> Ids:
        """Hold these experts; parameters stay the same objects, rows follow the ids."""

    def routing(self) -> Sequence[RoutingReport]:
        """What the routers did in training since the last call, by layer."""


def sparse_roles(routing: Literal["masked", "skip"]) -> tuple[Role, ...]:
    """What is partitioned with the experts: with masked routing their router rows too (section 3.2)."""
    return (Role.EXPERT, Role.ROUTER) if routing == "masked" else (Role.EXPERT,)


def expert_elements(shape: ModelShape, routing: Literal["masked", "skip"]) -> int:
    """Numbers that travel with one expert of one layer."""
    return shape.count(*sparse_roles(routing)) // (shape.expert_layers * shape.experts)


class Layout:
    """A model's parameters, dense and stacked. All methods take tensors in the order of `parameters`."""

    def __init__(self, model: nn.Module, shape: ModelShape, routing: Literal["masked", "skip"]) -> None:
        roles = {parameter.name: parameter for parameter in shape.parameters}
        named = list(model.named_parameters())
        self.experts = shape.experts
        self.parameters: list[nn.Parameter] = [parameter for _, parameter in named]
        self.stacks: list[list[int]] = [[] for _ in range(shape.layers)]  # by layer
        self.dense: list[int] = []
        for index, (name, _) in enumerate(named):
            described = roles[name]
            if described.role in sparse_roles(routing):
                assert described.layer is not None
                self.stacks[described.layer].append(index)
            else:
                self.dense.append(index)
        self.sparse = frozenset(index for stack in self.stacks for index in stack)

    def gather(self, tensors: Sequence[Tensor], members: Sequence[Ids] | None, residents: Sequence[Ids]) -> Tensor:
        """One flat copy (elements,) of these experts (ids by layer), or of the dense part for None."""
        if members is None:
            return flatten(tensors[index] for index in self.dense)
        return flatten(
            tensors[index][rows_of(ids, here)]
            for stack, ids, here in zip(self.stacks, members, residents, strict=True)
            for index in stack
        )

    @torch.no_grad()
    def scatter(
        self, tensors: Sequence[Tensor], flat: Tensor, members: Sequence[Ids] | None, residents: Sequence[Ids]
    ) -> None:
        """Write what `gather` returned into the tensors."""
        start = 0
        if members is None:
            for index in self.dense:
                count = tensors[index].numel()
                tensors[index].copy_(flat[start : start + count].view_as(tensors[index]))
                start += count
        else:
            for stack, ids, here in zip(self.stacks, members, residents, strict=True):
                rows = rows_of(ids, here)
                for index in stack:
                    shape = (len(ids), *tensors[index].shape[1:])
                    count = len(ids) * tensors[index][0].numel()
                    tensors[index][rows] = flat[start : start + count].view(shape)
                    start += count
        assert start == flat.numel()

    def _weight(
        self, expert: int, layer: int, placement: Placement, draw: int, present: Sequence[int], share: float | None
    ) -> float:
        """What one holder's copy of an expert counts: `share`, or more when other holders are not there."""
        if share is None or len(present) == placement.sites:
            return share or 1.0
        holders = next(h for h in placement.groups if expert in placement.members(h, draw)[layer])
        return 1 / len([holder for holder in holders if holder in present])

    def assemble(
        self,
        tensors: Sequence[Tensor],
        control: Exchange,
        placement: Placement,
        draw: int,
        rank: int,
        share: float | None,
    ) -> list[Tensor]:
        """The whole model's tensors, with every expert, at every worker; over the unshaped network.

        share None: holders agree, so the first holder speaks for all. Otherwise means are taken: every holder of an
        expert contributes this share of it, every worker its part of the dense weights.
        """
        present = getattr(control, "members", tuple(range(control.world)))
        full_number = len(present) / control.world  # sums among some are scaled up to the sum over all
        residents = placement.residents(rank, draw)
        spoken: list[Ids] = list(residents)

        def first_of(holders: tuple[int, ...]) -> int | None:
            return next((holder for holder in holders if holder in present), None)

        if share is None:
            mine = [placement.members(holders, draw) for holders in placement.groups if first_of(holders) == rank]
            spoken = [tuple(e for group in mine for e in group[layer]) for layer in range(len(self.stacks))]
        whole = []
        for index, tensor in enumerate(tensors):
            if index not in self.sparse:
                scale = 1 / control.world if share is not None else full_number * (rank == present[0])
                whole.append(tensor.detach() * scale)
                continue
            layer = next(i for i, stack in enumerate(self.stacks) if index in stack)
            full = tensor.new_zeros(self.experts, *tensor.shape[1:])
            weights = [self._weight(e, layer, placement, draw, present, share) * full_number for e in spoken[layer]]
            rows = tensor.detach()[rows_of(spoken[layer], residents[layer])]
            full[list(spoken[layer])] = rows * rows.new_tensor(weights).view(-1, *[1] * (rows.dim() - 1))
            whole.append(full)
        flat = flatten(whole)
        transfer = Transfer("fomoe/evaluation", flat.numel(), tuple(range(control.world)), full_precision(flat))
        control.run(0, [(transfer, flat)])
        parts = torch.split(flat, [tensor.numel() for tensor in whole])
        return [part.view_as(tensor) for part, tensor in zip(parts, whole, strict=True)]


def rows_of(ids: Ids, residents: Ids) -> list[int]:
    place = {expert: row for row, expert in enumerate(residents)}
    return [place[expert] for expert in ids]
