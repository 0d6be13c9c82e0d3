"""PowerSGD: DDP whose matrix gradients travel as low-rank factors (Vogels et al., arXiv 1905.13727, algorithm 1).

    M^k = G^k + E^k                                 a matrix gradient with its error, p x q
    P   = orthogonalise(mean_k M^k Q)               p x r, all-reduced with the gradients that stay whole
    Q   = mean_k (M^k)^T P                          q x r, all-reduced; the next step starts from it
    G   = P Q^T;    E^k = M^k - G;    theta = AdamW(theta, G)

Matrices are those of attention, MLP and experts; a stack of matrices is a batch of them. Norms, embeddings and routers
are averaged whole. r (p + q) numbers of a matrix move at every step instead of p q.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.compressed.payloads import LowRank
from algorithms.inner import flatten, tensor_bytes, unflatten_into, update
from algorithms.inner_worker import GradientWorker
from algorithms.method import Method, Options
from algorithms.settings import MATRICES
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer


class PowerSgdOptions(Options):
    rank: int = Field(default=4, ge=1, le=10**9)  # r
    error_feedback: bool = True


class PowerSgd(Method[PowerSgdOptions]):
    name = "powersgd"
    summary = "gradients averaged at every step as low-rank factors"
    Options = PowerSgdOptions
    joins_batches = True
    after_loss = "rollback"

    def factors(self, shape: ModelShape) -> tuple[int, int, int]:
        """Numbers in all P, in all Q, and in the matrices."""
        payload, p_all, q_all, whole = LowRank(self.options.rank), 0, 0, 0
        for parameter in shape.parameters:
            if parameter.role in MATRICES:
                p, q = parameter.shape[-2:]
                stack = parameter.elements // (p * q)
                left, right = payload.elements(p, q)
                p_all, q_all, whole = p_all + stack * left, q_all + stack * right, whole + parameter.elements
        return p_all, q_all, whole

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        (left, right, matrices), everyone, wire = self.factors(shape), tuple(range(sites)), self.options.wire_dtype
        first = Transfer("left", left + shape.count() - matrices, everyone, wire)
        second = Transfer("right", right, everyone, wire, phase=1)
        return Plan(sites, steps, (Recurrence((first, second), 1, 1, steps),))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        _, right, matrices = self.factors(shape)
        found = self.local_memory(shape)
        found["projections"] = 4 * right
        return {**found, "error_feedback": 4 * matrices} if self.options.error_feedback else found

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, moments, step counters and Q."""
        counters = self.inner.counters(shape.parameters)
        return shape.count() + self.moment_elements(shape) + counters + self.factors(shape)[1]

    def worker(self, setup: WorkerSetup) -> Worker:
        return PowerSgdWorker(self, setup)


class PowerSgdWorker(GradientWorker):
    """`right`: Q of every matrix (stack, q, r), the same at all workers; `errors` (stack, p, q)."""

    def __init__(self, method: PowerSgd, setup: WorkerSetup) -> None:
        super().__init__(setup)
        described = list(zip(self.parameters, setup.shape.parameters, strict=True))
        self.matrices = [p for p, d in described if d.role in MATRICES]
        self.whole = [p for p, d in described if d.role not in MATRICES]
        generator = torch.Generator().manual_seed(setup.seed)
        self.right = [_start(p, method.options.rank, generator) for p in self.matrices]
        feedback = method.options.error_feedback
        self.errors = [torch.zeros_like(_stacked(p)) for p in self.matrices] if feedback else []

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        first, second = self.setup.plan.at(step)
        signals = [_stacked(_gradient(p)) for p in self.matrices]
        if self.errors:
            torch._foreach_add_(signals, self.errors)
        left = [signal @ right for signal, right in zip(signals, self.right, strict=True)]
        whole = [_gradient(p) for p in self.whole]
        self._average(step, first, [*left, *whole])
        left = [torch.linalg.qr(factor).Q for factor in left]
        for signal, factor, right in zip(signals, left, self.right, strict=True):
            right.copy_(signal.mT @ factor)
        self._average(step, second, self.right)
        for place, (parameter, factor, right) in enumerate(zip(self.matrices, left, self.right, strict=True)):
            approximation = factor @ right.mT
            if self.errors:
                self.errors[place].copy_(signals[place] - approximation)
            _gradient(parameter).copy_(approximation.view_as(parameter))
        update(self.setup.optimizer, self.optimizer, lr)

    def _average(self, step: int, transfer: Transfer, tensors: list[Tensor]) -> None:
        flat = flatten(tensors)
        self.setup.exchange.run(step, [(transfer, flat)])
        unflatten_into(tensors, flat.div_(len(transfer.members)))

    def own(self, name: str) -> bool:
        return name.startswith("error.")

    def state(self) -> dict[str, Tensor]:
        right = {f"right.{i}": tensor for i, tensor in enumerate(self.right)}
        errors = {f"error.{i}": tensor for i, tensor in enumerate(self.errors)}
        return {**super().state(), **right, **errors}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        for name, tensors in (("right", self.right), ("error", self.errors)):
            for i, tensor in enumerate(tensors):
                tensor.copy_(state[f"{name}.{i}"])

    def memory(self) -> dict[str, int]:
        found = super().memory()
        found["projections"] = tensor_bytes(self.right)
        return {**found, "error_feedback": tensor_bytes(self.errors)} if self.errors else found


def _stacked(tensor: Tensor) -> Tensor:
    """(..., p, q) -> a copy (stack, p, q)."""
    return tensor.detach().clone().view(-1, *tensor.shape[-2:])


def _start(parameter: nn.Parameter, rank: int, generator: torch.Generator) -> Tensor:
    *_, p, q = parameter.shape
    size = (parameter.numel() // (p * q), q, min(rank, p, q))
    return torch.randn(size, generator=generator).to(parameter.dtype)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


METHOD = PowerSgd
