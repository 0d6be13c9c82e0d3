"""DDP with compressed gradients and error feedback: the strong baseline of few bytes and no local steps.

    a^m   = e^m + g^m;    D^m = C(a^m);    e^m = a^m - D^m        Karimireddy et al., arXiv 1901.09847
    theta = AdamW(theta, mean_m D^m)                              by an all-gather at every step

codec top_k   the k largest of each chunk, as bf16 with packed indices (Deep Gradient Compression, arXiv 1712.01887)
codec int8    8 bits a number with a scale per 256
codec sign    1 bit a number with a scale per chunk (EF-signSGD, arXiv 1901.09847)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.compressed.feedback import compressed_mean, gathered
from algorithms.compressed.gathering import GatheringMethod
from algorithms.compressed.payloads import Dense, Packed, Payload, TopK
from algorithms.inner import flatten, tensor_bytes, unflatten_into, update
from algorithms.inner_worker import GradientWorker
from algorithms.method import Options
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, WireType


class CompressedDdpOptions(Options):
    codec: Literal["top_k", "int8", "sign"] = "top_k"
    chunk: int = Field(default=4096, ge=2, le=65536)
    k: int = Field(default=41, ge=1, le=10**9)  # of each chunk: 1 %
    error_feedback: bool = True

    @property
    def payload(self) -> Payload:
        if self.codec == "top_k":
            return TopK(self.chunk, self.k, 16)
        return Dense(WireType.INT8) if self.codec == "int8" else Packed(1, self.chunk)


class CompressedDdp(GatheringMethod[CompressedDdpOptions]):
    name = "compressed_ddp"
    summary = "gradients averaged at every step, as top-k, int8 or signs with error feedback"
    Options = CompressedDdpOptions
    joins_batches = True
    after_loss = "rollback"

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        transfer = gathered("gradient", self.options.payload, shape.count(), tuple(range(sites)))
        return Plan(sites, steps, (Recurrence((transfer,), 1, 1, steps),))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = self.local_memory(shape)
        return {**found, "error_feedback": size} if self.options.error_feedback else found

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, moments and step counters."""
        return shape.count() + self.moment_elements(shape) + self.inner.counters(shape.parameters)

    def worker(self, setup: WorkerSetup) -> Worker:
        return CompressedDdpWorker(self, setup)


class CompressedDdpWorker(GradientWorker):
    def __init__(self, method: CompressedDdp, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options = method.options
        self.feedback = torch.zeros_like(flatten(self.parameters)) if self.options.error_feedback else None

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        (transfer,) = self.setup.plan.at(step)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        payload, exchange = self.options.payload, self.setup.exchange
        unflatten_into(gradients, compressed_mean(exchange, step, transfer, payload, flatten(gradients), self.feedback))
        update(self.setup.optimizer, self.optimizer, lr)

    def own(self, name: str) -> bool:
        return name == "error_feedback"

    def state(self) -> dict[str, Tensor]:
        kept = {} if self.feedback is None else {"error_feedback": self.feedback}
        return {**super().state(), **kept}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        if self.feedback is not None:
            self.feedback.copy_(state["error_feedback"])

    def memory(self) -> dict[str, int]:
        kept = {} if self.feedback is None else {"error_feedback": tensor_bytes([self.feedback])}
        return {**super().memory(), **kept}


METHOD = CompressedDdp
