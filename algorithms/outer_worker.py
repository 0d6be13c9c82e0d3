"""What workers with an inner optimizer and flat outer parameters have in common. In the trainer process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from algorithms.averaging import control_mean, swapped_in
from algorithms.inner import flatten, tensor_bytes, unflatten_into
from algorithms.inner_worker import InnerWorker
from algorithms.worker import WorkerSetup


class OuterWorker(InnerWorker):
    """Local steps, and flat vectors (elements,) that are kept between rounds: the outer parameters and `kept`, whose
    names are components of the memory.

    local: names in `kept` that are this worker's alone.   replicated: whether outer parameters agree at all workers.
    """

    local: ClassVar[tuple[str, ...]] = ()
    replicated: ClassVar[bool] = True

    def __init__(self, setup: WorkerSetup, *kept: str) -> None:
        super().__init__(setup)
        self.outer = flatten(self.parameters)
        self.kept: dict[str, Tensor] = {name: torch.zeros_like(self.outer) for name in kept}

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The outer parameters; their mean where workers' differ."""
        values = self.outer
        if not self.replicated:
            values = values.clone()
            control_mean(self.setup.control, "outer/evaluation", values)
        with swapped_in(self.parameters, values):
            yield self.setup.model

    def restart(self) -> None:
        """Begin the next round from the outer parameters."""
        unflatten_into(self.parameters, self.outer)

    def common(self) -> Tensor:
        return self.outer

    def own(self, name: str) -> bool:
        return super().own(name) or name in self.local

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "outer": self.outer, **self.kept}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.outer.copy_(state["outer"])
        for name, tensor in self.kept.items():
            tensor.copy_(state[name])

    def memory(self) -> dict[str, int]:
        return {
            **super().memory(),
            "outer_parameters": tensor_bytes([self.outer]),
            **{name: tensor_bytes([tensor]) for name, tensor in self.kept.items()},
        }
