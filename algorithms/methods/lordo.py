"""LoRDO: low-rank optimizer states with infrequent communication (arXiv 2602.04396).

Local step, for a matrix W (p, q) with basis Q (p, r), d = sqrt(v^) + eps, bias-corrected u^, v^:
    A = G + E;   g = Q^T A;   E = A - Q g                    G clipped gradient, E error feedback (optional)
    u = b1 u + (1-b1) g;      v = b2 v + (1-b2) g g
    W = W - eta [ (1-w) G / mean(d)  +  w Q (u^/d) ]         quasi-hyperbolic: a full-rank share of 1-w keeps Delta
                                                             from staying in the span of Q for ever
Every K_x steps D = mean_m (theta^m - theta_ref), theta = theta_ref + D;   every K_u, K_v steps u, v = mean_m;
then Q = the r leading left singular vectors of D, u and v turned from the old basis to the new, theta_ref = theta.

variant local: every worker takes Q from its own A at the first step after a synchronisation, and the quasi-hyperbolic
term stays inside the subspace; of the moments, those of full-rank parameters alone are averaged. All other
parameters: quasi-hyperbolic Adam in full rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import log
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.averaging import control_mean, swapped_in
from algorithms.inner import clip_gradients, flatten, tensor_bytes, unflatten_into
from algorithms.lowrank import LOW_RANK, LowRankAdam, LowRankSizes, NamePattern
from algorithms.method import Method, Options
from algorithms.periodic import periodic
from algorithms.settings import OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Collective, Plan, Recurrence, Transfer

LOCAL_OMEGA = 0.94  # as tuned in the public experiments, at rank d/8


def omega_for(betas: tuple[float, float]) -> float:
    """The momentum's weight for these betas, where the quasi-hyperbolic term leaves the subspace.

    A gradient weighs more against a momentum that averages over few steps, so omega and b1 belong together. Two points
    are known: 0.97 at b1 = 0.999, tuned in the public experiments at rank d/8, and 0.5 at b1 = 0.9, at parity with
    low-rank DDP on three seeds at width 64. Between and beyond them the power law of 1 - b1 through both.
    """
    exponent = log(0.5 / 0.03) / log(0.1 / 0.001)
    return max(0.0, 1 - 0.03 * float(((1 - betas[0]) / 0.001) ** exponent))


class LordoOptions(Options):
    sync_every: int = Field(default=32, ge=1, le=10**9)  # K_x
    k_u: int | None = Field(default=None, ge=1, le=10**9)  # default K_x
    k_v: int | None = Field(default=None, ge=1, le=10**9)  # default K_x
    variant: Literal["global", "local"] = "global"
    rank: int | None = Field(default=None, ge=1, le=10**9)  # r; default width / 8
    omega: float | None = Field(default=None, ge=0, le=1)  # default from the betas, see `omega_for`; local 0.94
    full_rank_term: Literal["gradient", "feedback"] = "gradient"  # G as printed, or G + E
    error_feedback: bool = True
    rotate_moments: bool = True
    low_rank: NamePattern = LOW_RANK  # which parameters, a regular expression on their names
    betas: tuple[float, float] | None = None  # after the warm-up; default, and during it: the suite's
    warmup_steps: int = Field(default=1, ge=0, le=10**9)  # of low-rank DDP; with 1, Q_0 comes from an averaged gradient
    switch_scale: float = Field(default=1.0, gt=0, le=1e6)  # of the learning rate, after the warm-up
    # Which moments are averaged: all; none; or those of the full-rank parameters alone, the default of local, whose
    # workers have bases of their own.
    moments: Literal["average", "keep", "full_rank"] | None = None
    broadcast_basis: bool = False  # Q computed at rank 0 and sent, for sites whose SVDs may differ in the last bit


class Lordo(Method[LordoOptions]):
    name = "lordo"
    summary = "low-rank moments, bases from pseudo-gradients"
    Options = LordoOptions

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw",)  # its own, in a subspace

    def sizes(self, shape: ModelShape) -> LowRankSizes:
        return LowRankSizes.of(shape, self.options.low_rank, self.options.rank)

    @property
    def averaged_moments(self) -> Literal["average", "keep", "full_rank"]:
        return self.options.moments or ("average" if self.options.variant == "global" else "full_rank")

    def averaged_elements(self, sizes: LowRankSizes) -> int:
        """Numbers of each moment that are averaged."""
        return {"average": sizes.moment + sizes.full, "keep": 0, "full_rank": sizes.full}[self.averaged_moments]

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, sizes = self.options, self.sizes(shape)
        wire, everyone, start = options.wire_dtype, tuple(range(sites)), min(options.warmup_steps, steps)
        recurrences = [Recurrence((Transfer("gradient", shape.count(), everyone, wire),), 1, 1, start)] if start else []
        found = [Transfer("pseudo_gradient", shape.count(), everyone, wire)]
        if options.broadcast_basis and options.variant == "global":
            found.append(Transfer("basis", sizes.bases, everyone, wire, Collective.BROADCAST, root=0, phase=1))
        recurrences += periodic(tuple(found), options.sync_every, steps, start)
        for name, every in (("u", options.k_u), ("v", options.k_v)):
            if elements := self.averaged_elements(sizes):
                moment = Transfer(name, elements, everyone, wire)
                every = every or options.sync_every
                recurrences.append(Recurrence((moment,), every, start + every, steps))
        return Plan(sites, steps, tuple(recurrences))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size, sizes = 4 * shape.count(), self.sizes(shape)
        found = {
            "weights": size,
            "gradients": size,
            "inner_moments": 4 * 2 * (sizes.moment + sizes.full),
            "projections": 4 * sizes.bases,
            "reference": size,
        }
        return {**found, "error_feedback": 4 * sizes.matrices} if self.options.error_feedback else found

    def shared(self, shape: ModelShape, sites: int) -> int:
        """The reference, moments, bases and a step counter."""
        sizes = self.sizes(shape)
        return shape.count() + 2 * (sizes.moment + sizes.full) + sizes.bases + 1

    def worker(self, setup: WorkerSetup) -> Worker:
        return LordoWorker(self, setup)


class LordoWorker(Worker):
    """`reference`: the parameters after the last synchronisation, flat (elements,), the same at every worker."""

    def __init__(self, method: Lordo, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.method, self.options = method, method.options
        options = method.options
        default = LOCAL_OMEGA if options.variant == "local" else omega_for(options.betas or setup.optimizer.betas)
        self.omega = default if options.omega is None else options.omega
        self.parameters = list(setup.model.parameters())
        self.adam = LowRankAdam(setup, options)
        self.reference = flatten(self.parameters)
        self.drifted = False

    def betas(self, step: int) -> tuple[float, float]:
        after = step > self.options.warmup_steps
        return self.options.betas if after and self.options.betas else self.setup.optimizer.betas

    def local_update(self, step: int, lr: float) -> None:
        if step > self.options.warmup_steps:
            self._adam_step(step, lr * self.options.switch_scale)
            self.drifted = True

    def _adam_step(self, step: int, lr: float) -> None:
        warming, local = step <= self.options.warmup_steps, self.options.variant == "local"
        clip_gradients(self.setup.optimizer, self.parameters)
        gradients = self.adam.gradients()
        full = flatten(p.grad for p in self.adam.full if p.grad is not None)
        signals = self.adam.signals(gradients)
        local_step = step if warming else step - self.options.warmup_steps
        if (warming or local) and (local_step - 1) % self.options.sync_every == 0:
            self.adam.rebase(signals, self.betas(step), self.options.rotate_moments)
        outside = None if warming or local or self.omega == 1 else gradients
        if outside is not None and self.options.full_rank_term == "feedback":
            outside = [signal.clone() for signal in signals]  # they lie where `project` leaves the new E
        projected = self.adam.project(signals)
        self.adam.advance(projected, outside, full, lr, self.betas(step), 1.0 if warming else self.omega)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        transfers = {transfer.name: transfer for transfer in self.setup.plan.at(step)}
        if "gradient" in transfers:
            self._warm_up(step, lr, transfers["gradient"])
        elif transfers:
            self._average(step, transfers)

    def _average(self, step: int, transfers: Mapping[str, Transfer]) -> None:
        delta = flatten(self.parameters).sub_(self.reference)
        first = 0 if self.method.averaged_moments == "average" else -1  # the last is that of full-rank parameters
        moments = {name: self.adam.moment(name)[first:] for name in transfers if name in ("u", "v")}
        sent: dict[str, Tensor] = {name: flatten(tensors) for name, tensors in moments.items()}
        if "pseudo_gradient" in transfers:
            sent["pseudo_gradient"] = delta
        self.setup.exchange.run(step, [(transfers[name], tensor) for name, tensor in sent.items()])
        for name, tensors in moments.items():
            unflatten_into(tensors, sent[name].div_(self.setup.world))
        if "pseudo_gradient" in transfers:
            self._new_round(step, delta.div_(self.setup.world), transfers.get("basis"))

    def _new_round(self, step: int, delta: Tensor, basis: Transfer | None) -> None:
        """Averages of the moments are in place, still in the old basis."""
        unflatten_into(self.parameters, self.reference.add_(delta))
        self.drifted = False
        if self.options.variant == "local":
            return
        betas, rotate = self.betas(step), self.options.rotate_moments
        if basis is None:
            self.adam.rebase(self._batches_of(delta), betas, rotate)
            return
        found = [batch.q.clone() for batch in self.adam.batches]
        if self.setup.rank == basis.root:
            found = self.adam.bases_of(self._batches_of(delta))
        flat = flatten(found)
        self.setup.exchange.run(step, [(basis, flat)])
        unflatten_into(found, flat)
        self.adam.set_bases(found, betas, rotate)

    def _batches_of(self, flat: Tensor) -> list[Tensor]:
        """A flat vector of the parameters' size -> (n, p, q) for every batch of low-rank matrices."""
        parts = torch.split(flat, [p.numel() for p in self.parameters])
        by_parameter = {p: part.view_as(p) for p, part in zip(self.parameters, parts, strict=True)}
        return [batch.stack([by_parameter[p] for p in batch.parameters]) for batch in self.adam.batches]

    def _warm_up(self, step: int, lr: float, transfer: Transfer) -> None:
        """One step of low-rank DDP; after the last, moments and reference start anew."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = flatten(gradients)
        self.setup.exchange.run(step, [(transfer, flat)])
        unflatten_into(gradients, flat.div_(self.setup.world))
        self._adam_step(step, lr)
        if step == self.options.warmup_steps:
            self.adam.forget_moments()
        self.reference = flatten(self.parameters)

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The mean of the workers' models; right after a synchronisation that is everyone's."""
        mean = flatten(self.parameters)
        if self.drifted:
            control_mean(self.setup.control, "lordo/evaluation", mean)
        with swapped_in(self.parameters, mean):
            yield self.setup.model

    def metrics(self) -> dict[str, float]:
        """How much of the last basis the new one kept: |Q_new^T Q_old|^2 / r, mean over the matrices."""
        return {"subspace_overlap": self.adam.overlap}

    def own(self, name: str) -> bool:
        return name.endswith(".e")

    def common(self) -> Tensor:
        return self.reference

    def state(self) -> dict[str, Tensor]:
        return {**self.adam.state(), "reference": self.reference}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.adam.load(dict(state))
        self.reference.copy_(state["reference"])

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        own = {"weights": size, "gradients": size, "reference": tensor_bytes([self.reference])}
        return {**own, **self.adam.memory()}


METHOD = Lordo
