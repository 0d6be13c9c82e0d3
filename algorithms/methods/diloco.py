"""DiLoCo: local AdamW for H steps, then an outer Nesterov step on the averaged pseudo-gradient (arXiv 2311.08105).

    theta^m = AdamW^H(theta)                       each worker m on its own shard, moments kept local
    Delta   = mean_m (theta - theta^m)             pseudo-gradient, algorithm 1 line 12
    b       = mu b + Delta
    theta   = theta - eta (Delta + mu b)           Nesterov as in torch.optim.SGD; eta = 0.7, mu = 0.9

`outer_lr: 1, outer_momentum: 0` is plain averaging (FedAvg).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.averaging import swapped_in
from algorithms.inner import (
    build_optimizer,
    flatten,
    load_optimizer_tensors,
    moment_bytes,
    optimizer_tensors,
    tensor_bytes,
    unflatten_into,
    update,
)
from algorithms.method import Method, Options
from algorithms.outer import nesterov_
from algorithms.periodic import periodic
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Transfer


class DilocoOptions(Options):
    sync_every: int = Field(default=500, ge=1)  # H; the paper's choice
    outer_lr: float = Field(default=0.7, gt=0)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)


class Diloco(Method[DilocoOptions]):
    name = "diloco"
    summary = "local AdamW, outer Nesterov on averaged pseudo-gradients"
    Options = DilocoOptions

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        everyone = tuple(range(sites))
        pseudo_gradient = Transfer("pseudo_gradient", shape.count(), everyone, self.options.wire_dtype)
        return Plan(sites, steps, periodic((pseudo_gradient,), self.options.sync_every, steps))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        return {
            "weights": size,
            "gradients": size,
            "inner_moments": self.moment_bytes(shape),
            "outer_parameters": size,
            "outer_momentum": size,
        }

    def worker(self, setup: WorkerSetup) -> Worker:
        return DilocoWorker(self, setup)


class DilocoWorker(Worker):
    """Keeps the outer parameters and the outer momentum as flat vectors (elements,)."""

    def __init__(self, method: Diloco, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options = method.options
        self.parameters = list(setup.model.parameters())
        self.optimizer = build_optimizer(setup.optimizer, self.parameters, setup.shape.parameters)
        self.outer = flatten(self.parameters)
        self.momentum = torch.zeros_like(self.outer)

    def local_update(self, step: int, lr: float) -> None:
        update(self.setup.optimizer, self.optimizer, lr)

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        for transfer in self.setup.plan.at(step):
            delta = self.outer - flatten(self.parameters)
            self.setup.exchange.run(step, [(transfer, delta)])
            delta.div_(len(transfer.members))
            nesterov_(self.outer, delta, self.momentum, self.options.outer_lr, self.options.outer_momentum)
            unflatten_into(self.parameters, self.outer)

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        with swapped_in(self.parameters, self.outer):
            yield self.setup.model

    def common(self) -> Tensor:
        return self.outer

    def state(self) -> dict[str, Tensor]:
        return {**optimizer_tensors(self.optimizer), "outer": self.outer, "outer_momentum": self.momentum}

    def load(self, state: Mapping[str, Tensor]) -> None:
        load_optimizer_tensors(self.optimizer, state)
        self.outer.copy_(state["outer"])
        self.momentum.copy_(state["outer_momentum"])

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        return {
            "weights": size,
            "gradients": size,
            "inner_moments": moment_bytes(self.optimizer),
            "outer_parameters": tensor_bytes([self.outer]),
            "outer_momentum": tensor_bytes([self.momentum]),
        }


METHOD = Diloco
