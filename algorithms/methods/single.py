"""Single: AdamW without any communication, every worker on its own: what the others' data is worth.

With one site it is the single-worker reference; with more, the evaluated loss is the mean over the lone models.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from algorithms.inner import (
    build_optimizer,
    load_optimizer_tensors,
    moment_bytes,
    optimizer_tensors,
    tensor_bytes,
    update,
)
from algorithms.method import Method, Options
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan


class Single(Method[Options]):
    name = "single"
    summary = "every worker on its own"
    Options = Options

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        return Plan(sites, steps, ())

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        return {"weights": size, "gradients": size, "inner_moments": self.moment_bytes(shape)}

    def worker(self, setup: WorkerSetup) -> Worker:
        return SingleWorker(setup)


class SingleWorker(Worker):
    def __init__(self, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.parameters = list(setup.model.parameters())
        self.optimizer = build_optimizer(setup.optimizer, self.parameters, setup.shape.parameters)

    def local_update(self, step: int, lr: float) -> None:
        update(self.setup.optimizer, self.optimizer, lr)

    def synchronise(self, step: int, lr: float) -> None:
        """Nothing: there is no plan."""

    def state(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.optimizer)

    def load(self, state: Mapping[str, Tensor]) -> None:
        load_optimizer_tensors(self.optimizer, state)

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        return {"weights": size, "gradients": size, "inner_moments": moment_bytes(self.optimizer)}


METHOD = Single
