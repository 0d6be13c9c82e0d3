"""DeMo: decoupled momentum (Peng et al., arXiv 2411.19870, algorithm 1).

    m^k   = beta m^k + g^k                          momentum of each worker k, never synchronised as a whole
    q^k   = TopK(DCT(chunks of m^k));               the fast components, k of each chunk
    m^k   = m^k - DCT^-1(q^k)                       what was sent leaves the momentum
    theta = (1 - lr wd) theta - lr sign(DCT^-1(mean_k q^k))

Every step sends k amplitudes and their packed places per chunk, by an all-gather. The momentum is its own error
feedback and the only moment. Chunks are consecutive numbers of the flat model with a one-dimensional DCT-II; the
paper's are 64 x 64 blocks of a matrix with a two-dimensional one. A sign step is as large as Lion's: take a learning
rate about ten times lower than AdamW's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.compressed.feedback import compressed_mean, gathered
from algorithms.compressed.gathering import GatheringMethod
from algorithms.compressed.payloads import TopK
from algorithms.inner import clip_gradients, flatten, tensor_bytes, unflatten_into
from algorithms.method import Options
from algorithms.settings import OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence


class DemoOptions(Options):
    chunk: int = Field(default=64, ge=2, le=4096)
    k: int = Field(default=4, ge=1, le=10**9)  # amplitudes of each chunk
    bits: Literal[1, 2, 16, 32] = 16  # of an amplitude
    momentum: float = Field(default=0.999, ge=0, lt=1)  # beta

    @property
    def payload(self) -> TopK:
        return TopK(self.chunk, self.k, self.bits)


class Demo(GatheringMethod[DemoOptions]):
    name = "demo"
    summary = "local momentum, its fastest DCT components sent at every step"
    Options = DemoOptions
    after_loss = "rollback"

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw", "sgd")  # its learning rate, weight decay and clipping; the update is DeMo's

    def padded(self, shape: ModelShape) -> int:
        """Numbers in whole chunks."""
        return -(-shape.count() // self.options.chunk) * self.options.chunk

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        transfer = gathered("components", self.options.payload, self.padded(shape), tuple(range(sites)))
        return Plan(sites, steps, (Recurrence((transfer,), 1, 1, steps),))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        return {"weights": size, "gradients": size, "inner_moments": size, "transform": 4 * self.options.chunk**2}

    def shared(self, shape: ModelShape, sites: int) -> int:
        """The weights: momenta are each worker's own."""
        return shape.count()

    def worker(self, setup: WorkerSetup) -> Worker:
        return DemoWorker(self, setup)


class DemoWorker(Worker):
    def __init__(self, method: Demo, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options, self.padded = method.options, method.padded(setup.shape)
        self.parameters = list(setup.model.parameters())
        self.momentum = torch.zeros_like(flatten(self.parameters))
        self.basis = dct_basis(self.options.chunk).to(self.momentum.dtype)

    def local_update(self, step: int, lr: float) -> None:
        """Nothing: the update needs everyone's components."""

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        (transfer,) = self.setup.plan.at(step)
        clip_gradients(self.setup.optimizer, self.parameters)
        gradients = flatten(p.grad for p in self.parameters if p.grad is not None)
        self.momentum.mul_(self.options.momentum).add_(gradients)
        left = self._chunks(self.momentum) @ self.basis.T  # amplitudes (chunks, chunk)
        residual = torch.zeros_like(left).reshape(-1)
        mean = compressed_mean(self.setup.exchange, step, transfer, self.options.payload, left.reshape(-1), residual)
        self.momentum.copy_((residual.view_as(left) @ self.basis).reshape(-1)[: self.momentum.numel()])
        direction = (mean.view_as(left) @ self.basis).reshape(-1)[: self.momentum.numel()].sign_()
        decay = 1 - lr * self.setup.optimizer.weight_decay
        torch._foreach_mul_([p for p in self.parameters if p.dim() > 1], decay)
        unflatten_into(self.parameters, flatten(self.parameters).sub_(direction, alpha=lr))
        for parameter in self.parameters:
            parameter.grad = None

    def _chunks(self, flat: Tensor) -> Tensor:
        whole = flat.new_zeros(self.padded)
        whole[: flat.numel()] = flat
        return whole.view(-1, self.options.chunk)

    def own(self, name: str) -> bool:
        return name == "momentum"

    def state(self) -> dict[str, Tensor]:
        return {"momentum": self.momentum}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.momentum.copy_(state["momentum"])

    def memory(self) -> dict[str, int]:
        size = tensor_bytes(self.parameters)
        own = {"inner_moments": tensor_bytes([self.momentum]), "transform": tensor_bytes([self.basis])}
        return {"weights": size, "gradients": size, **own}


def dct_basis(width: int) -> Tensor:
    """The orthonormal DCT-II: row j has the j-th cosine, (width, width) fp64."""
    place = torch.arange(width, dtype=torch.float64)
    basis: Tensor = torch.cos(pi / width * (place[None, :] + 0.5) * place[:, None]) * (2 / width) ** 0.5
    basis[0] /= 2**0.5
    return basis


METHOD = Demo
