"""DiLoCo: local AdamW for H steps, then an outer Nesterov step on the averaged pseudo-gradient (arXiv 2311.08105).

    theta^m = AdamW^H(theta)                       each worker m on its own shard, moments kept local
    Delta   = mean_m (theta - theta^m)             pseudo-gradient, algorithm 1 line 12
    b       = mu b + Delta
    theta   = theta - eta (Delta + mu b)           Nesterov as in torch.optim.SGD; eta = 0.7, mu = 0.9

`outer_lr: 1, outer_momentum: 0` is plain averaging (FedAvg). The mean may weigh workers by their shards, and updates
may be lost: such a worker contributes nothing and trains on from its own parameters. The first `pretrain_steps` are
data-parallel, as the paper starts from a pretrained model (24,000 of 88,000 steps).
"""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

import torch
from pydantic import Field, field_validator

from algorithms.inner import flatten, unflatten_into, update
from algorithms.method import Method, Options
from algorithms.outer import nesterov_
from algorithms.outer_worker import OuterWorker
from algorithms.periodic import periodic
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.errors import InputError
from netsim.traffic import Plan, Recurrence, Transfer


class DilocoOptions(Options):
    sync_every: int = Field(default=500, ge=1, le=10**9)  # H; the paper's choice
    outer_lr: float = Field(default=0.7, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)
    pretrain_steps: int = Field(default=0, ge=0, le=10**9)  # with gradients averaged at every step
    worker_weights: tuple[float, ...] | None = None  # tokens in every worker's shard, relative; default: equal
    drop_probability: float = Field(default=0.0, ge=0, lt=1)  # that a worker's update of a round is lost

    @field_validator("worker_weights")
    @classmethod
    def _positive(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not all(0 < weight < inf for weight in weights):
            raise ValueError("weights above 0")
        return weights


class Diloco(Method[DilocoOptions]):
    name = "diloco"
    summary = "local AdamW, outer Nesterov on averaged pseudo-gradients"
    Options = DilocoOptions

    @property
    def may_skip_steps(self) -> bool:
        return self.options.pretrain_steps == 0

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        everyone = tuple(range(sites))
        self.weight(0, everyone, sites)
        pseudo_gradient = Transfer("pseudo_gradient", shape.count(), everyone, self.options.wire_dtype)
        start = min(self.options.pretrain_steps, steps)
        gradient = replace(pseudo_gradient, name="gradient")
        together = (Recurrence((gradient,), 1, 1, start),) if start else ()
        return Plan(sites, steps, (*together, *periodic((pseudo_gradient,), self.options.sync_every, steps, start)))

    def arrived(self, step: int, sites: int, seed: int) -> tuple[int, ...]:
        """The workers whose updates of the round that ends after `step` count; a function of the seed."""
        draw = random.Random(f"drop {seed} {step}")
        return tuple(rank for rank in range(sites) if draw.random() >= self.options.drop_probability)

    def weight(self, rank: int, arrived: tuple[int, ...], sites: int | None = None) -> float:
        """A worker's weight in the mean of those that arrived, 0 for others."""
        weights = self.options.worker_weights
        if weights is None:
            return 1 / len(arrived) if rank in arrived else 0.0
        if len(weights) <= max(arrived) or (sites is not None and len(weights) != sites):
            found, allowed = len(weights), f"one for each of the {sites or max(arrived) + 1} sites"
            raise InputError("diloco", "worker_weights", found, allowed)
        return weights[rank] / sum(weights[k] for k in arrived) if rank in arrived else 0.0

    def scale(self, transfer: Transfer, present: tuple[int, ...]) -> float:
        """Weights make sums means already; those who are there count for all."""
        if not self.weighted or transfer.name == "gradient":
            return super().scale(transfer, present)
        total = sum(self.weight(rank, transfer.members) for rank in present)
        return 1 / total

    @property
    def weighted(self) -> bool:
        """Whether contributions carry their weights, so that their sum is the mean."""
        return self.options.worker_weights is not None or self.options.drop_probability > 0

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        return {
            **self.local_memory(shape),
            "outer_parameters": size,
            "outer_momentum": size,
        }

    def worker(self, setup: WorkerSetup) -> Worker:
        return DilocoWorker(self, setup)


class DilocoWorker(OuterWorker):
    """Keeps the outer momentum beside the outer parameters."""

    def __init__(self, method: Diloco, setup: WorkerSetup) -> None:
        super().__init__(setup, "outer_momentum")
        self.method, self.options = method, method.options

    def local_update(self, step: int, lr: float) -> None:
        if step > self.options.pretrain_steps:
            super().local_update(step, lr)

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        for transfer in self.setup.plan.at(step):
            if transfer.name == "gradient":
                self._pretrain(step, lr, transfer)
            else:
                self._outer_step(step, transfer)

    def _pretrain(self, step: int, lr: float, transfer: Transfer) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = flatten(gradients)
        self.setup.exchange.run(step, [(transfer, flat)])
        unflatten_into(gradients, flat.div_(len(transfer.members)))
        update(self.setup.optimizer, self.optimizer, lr)
        self.outer.copy_(flatten(self.parameters))

    def _outer_step(self, step: int, transfer: Transfer) -> None:
        delta = self.outer - flatten(self.parameters)
        arrived = transfer.members
        if self.method.weighted:
            arrived = self.method.arrived(step, self.setup.world, self.setup.seed)
            delta.mul_(self.method.weight(self.setup.rank, arrived) if arrived else 0.0)
        self.setup.exchange.run(step, [(transfer, delta)])
        if not self.method.weighted:
            delta.div_(len(transfer.members))
        if arrived:
            momentum = self.kept["outer_momentum"]
            nesterov_(self.outer, delta, momentum, self.options.outer_lr, self.options.outer_momentum)
        if self.setup.rank in arrived:
            self.restart()


METHOD = Diloco
