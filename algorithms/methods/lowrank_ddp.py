"""Low-rank DDP: gradients averaged at every step, Adam's moments in a subspace (GaLore's kind; LoRDO's baseline).

    A = G + E;   g = Q^T A;   E = A - Q g                             algorithms.lowrank; Q = SVD_r(A) every T steps
    u = b1 u + (1-b1) g;      v = b2 v + (1-b2) g g
    W = W - eta Q [ ((1-w) g + w u^) / (sqrt(v^) + eps) ]

send full: G is averaged whole, so E is the same everywhere: N numbers a step.
send projected: every worker projects its own A and g is averaged: S + N_f numbers a step, and the whole of A when the
basis is renewed, so (S + N_f)(1 - 1/T) + N/T in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.inner import clip_gradients, flatten, tensor_bytes, unflatten_into
from algorithms.lowrank import LOW_RANK, LowRankAdam, LowRankSizes, NamePattern
from algorithms.method import Method, Options
from algorithms.settings import OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer


class LowRankDdpOptions(Options):
    send: Literal["full", "projected"] = "full"
    refresh_every: int = Field(default=32, ge=1, le=10**9)  # T, steps between bases
    rank: int | None = Field(default=None, ge=1, le=10**9)  # r; default width / 8
    omega: float = Field(default=0.91, ge=0, le=1)  # as publicly tuned; 1: plain Adam
    # Where the quasi-hyperbolic term lies: inside the subspace, as published, or outside as LoRDO's, from G or G + E.
    term: Literal["inside", "gradient", "feedback"] = "inside"
    error_feedback: bool = True
    rotate_moments: bool = True
    low_rank: NamePattern = LOW_RANK  # which parameters, a regular expression on their names

    @model_validator(mode="after")
    def _whole_gradient(self) -> Self:
        if self.term != "inside" and self.send == "projected":
            raise ValueError("term: inside with send: projected, which averages no whole gradient")
        return self


class LowRankDdp(Method[LowRankDdpOptions]):
    name = "lowrank_ddp"
    summary = "gradients averaged at every step, moments in a subspace"
    Options = LowRankDdpOptions
    joins_batches = True
    after_loss = "rollback"

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw",)  # its own, in a subspace

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, everyone = self.options, tuple(range(sites))
        sizes = LowRankSizes.of(shape, options.low_rank, options.rank)
        whole = Transfer("gradient", shape.count(), everyone, options.wire_dtype)
        if options.send == "full":
            return Plan(sites, steps, (Recurrence((whole,), 1, 1, steps),))
        small = Transfer("projected", sizes.moment + sizes.full, everyone, options.wire_dtype)
        every = options.refresh_every
        between = (Recurrence((small,), every, first, steps) for first in range(2, min(every, steps) + 1))
        return Plan(sites, steps, (Recurrence((whole,), every, 1, steps), *between))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size, sizes = 4 * shape.count(), LowRankSizes.of(shape, self.options.low_rank, self.options.rank)
        found = {
            "weights": size,
            "gradients": size,
            "inner_moments": 4 * 2 * (sizes.moment + sizes.full),
            "projections": 4 * sizes.bases,
        }
        return {**found, "error_feedback": 4 * sizes.matrices} if self.options.error_feedback else found

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, moments, bases and a step counter; error feedback where it is that of the averaged gradient."""
        sizes = LowRankSizes.of(shape, self.options.low_rank, self.options.rank)
        feedback = sizes.matrices if self.options.error_feedback and self.options.send == "full" else 0
        return shape.count() + 2 * (sizes.moment + sizes.full) + sizes.bases + 1 + feedback

    def worker(self, setup: WorkerSetup) -> Worker:
        return LowRankDdpWorker(self.options, setup)


class LowRankDdpWorker(Worker):
    def __init__(self, options: LowRankDdpOptions, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options = options
        self.parameters = list(setup.model.parameters())
        self.adam = LowRankAdam(setup, options)

    def local_update(self, step: int, lr: float) -> None:
        """Nothing: the update needs averages."""

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        """`send: full` clips the averaged gradient; `projected` each worker's own, before it is projected."""
        (transfer,) = self.setup.plan.at(step)
        refresh = (step - 1) % self.options.refresh_every == 0
        if self.options.send == "full":
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            unflatten_into(gradients, self._mean(step, transfer, flatten(gradients)))
        clip_gradients(self.setup.optimizer, self.parameters)
        full = flatten(p.grad for p in self.adam.full if p.grad is not None)
        gradients = self.adam.gradients()
        signals = self.adam.signals(gradients)
        outside: list[Tensor] | None = None
        if self.options.send == "full":
            if refresh:
                self._rebase(signals)
            if self.options.term != "inside" and self.options.omega < 1:
                # Signals lie where `project` leaves the new E.
                outside = gradients if self.options.term == "gradient" else [signal.clone() for signal in signals]
            projected = self.adam.project(signals)
        elif refresh:
            sources = [signal.clone() for signal in signals]
            unflatten_into([*sources, full], self._mean(step, transfer, flatten([*sources, full])))
            self._rebase(sources)
            self.adam.project(signals)  # leaves every worker its own error
            projected = [batch.q.mT @ source for batch, source in zip(self.adam.batches, sources, strict=True)]
        else:
            projected = self.adam.project(signals)
            unflatten_into([*projected, full], self._mean(step, transfer, flatten([*projected, full])))
        self.adam.advance(projected, outside, full, lr, self.setup.optimizer.betas, self.options.omega)
        for parameter in self.parameters:
            parameter.grad = None

    def _rebase(self, sources: list[Tensor]) -> None:
        self.adam.rebase(sources, self.setup.optimizer.betas, self.options.rotate_moments)

    def _mean(self, step: int, transfer: Transfer, flat: Tensor) -> Tensor:
        self.setup.exchange.run(step, [(transfer, flat)])
        return flat.div_(self.setup.world)

    def metrics(self) -> dict[str, float]:
        return {"subspace_overlap": self.adam.overlap}

    def own(self, name: str) -> bool:
        return name.endswith(".e") and self.options.send == "projected"

    def state(self) -> dict[str, Tensor]:
        return self.adam.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.adam.load(dict(state))

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        return {"weights": size, "gradients": size, **self.adam.memory()}


METHOD = LowRankDdp
