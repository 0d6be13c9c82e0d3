"""Means over workers that methods share: of a model for evaluation, and of AdamW's moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from algorithms.exchange import Exchange
from algorithms.inner import flatten, unflatten_into
from algorithms.optimizers import SlottedOptimizer
from netsim.traffic import Collective, Transfer, WireType

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch.optim.AdamW's names


def full_precision(tensor: Tensor) -> WireType:
    """The wire type that carries this tensor exactly."""
    return WireType.FP64 if tensor.dtype == torch.float64 else WireType.FP32


def control_mean(control: Exchange, name: str, values: Tensor, step: int = 0) -> None:
    """Replace `values` (elements,) by their mean over all workers; over the unshaped network, exactly."""
    transfer = Transfer(name, values.numel(), tuple(range(control.world)), full_precision(values))
    control.run(step, [(transfer, values)])
    values.div_(control.world)


def control_broadcast(control: Exchange, name: str, values: Tensor, root: int, step: int = 0) -> None:
    """Replace `values` (elements,) by those of `root`; over the unshaped network, exactly."""
    everyone = tuple(range(control.world))
    wire = full_precision(values)
    control.run(step, [(Transfer(name, values.numel(), everyone, wire, Collective.BROADCAST, root=root), values)])


@contextmanager
def swapped_in(parameters: Sequence[nn.Parameter], flat: Tensor) -> Iterator[None]:
    """The parameters hold `flat` for a while, then their own values again."""
    own = flatten(parameters)
    unflatten_into(parameters, flat)
    try:
        yield
    finally:
        unflatten_into(parameters, own)


class Moments:
    """The inner optimizer's moments of some parameters, allocated at once: they can be sent before the first step."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        self.states = [optimizer.state[parameter] for parameter in parameters]
        if isinstance(optimizer, SlottedOptimizer):
            optimizer.allocate_all()
        for state, parameter in zip(self.states, parameters, strict=True):
            if not state and isinstance(optimizer, torch.optim.AdamW):
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)

    def tensors(self, which: str) -> list[Tensor]:
        """`exp_avg` or `exp_avg_sq` of every parameter, in their order."""
        return [state[which] for state in self.states]

    def banks(self) -> list[list[Tensor]]:
        """Both moments, or nothing for an optimizer that has none."""
        return [self.tensors(name) for name in MOMENTS if all(name in state for state in self.states)]

    def reset(self, step: float = 0.0) -> None:
        """All moments zero, as if no step had been made (`step`: or as after so many)."""
        for state in self.states:
            for value in state.values():
                value.zero_()
        self.count(step)

    def count(self, step: float) -> None:
        """Set the step that bias correction counts from."""
        for state in self.states:
            if "step" in state:
                state["step"].fill_(step)
