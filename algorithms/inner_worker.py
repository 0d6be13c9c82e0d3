"""What workers with an inner optimizer have in common. In the trainer process."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from algorithms.averaging import Moments
from algorithms.inner import (
    build_optimizer,
    load_optimizer_tensors,
    moment_bytes,
    optimizer_tensors,
    tensor_bytes,
    update,
)
from algorithms.worker import Worker, WorkerSetup


class InnerWorker(Worker):
    """Steps of the inner optimizer between synchronisations; its moments stay at this worker."""

    def __init__(self, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.parameters = list(setup.model.parameters())
        self.optimizer = build_optimizer(setup.optimizer, self.parameters, setup.shape.parameters)

    def local_update(self, step: int, lr: float) -> None:
        update(self.setup.optimizer, self.optimizer, lr)

    def state(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.optimizer)

    def load(self, state: Mapping[str, Tensor]) -> None:
        load_optimizer_tensors(self.optimizer, state)

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        return {"weights": size, "gradients": size, "inner_moments": moment_bytes(self.optimizer)}


class GradientWorker(InnerWorker):
    """Averages gradients in `synchronise` at every step, so that parameters and moments are the same at all workers."""

    def local_update(self, step: int, lr: float) -> None:
        """Nothing: the update needs the averaged gradients."""

    def own(self, name: str) -> bool:
        return False

    def shared(self) -> dict[str, Tensor]:
        Moments(self.optimizer, self.parameters)  # allocates what a fresh optimizer lacks
        return super().shared()
