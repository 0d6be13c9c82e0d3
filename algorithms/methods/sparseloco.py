"""SparseLoCo: DiLoCo whose pseudo-gradients are sparse and quantised (Sarfi et al., arXiv 2508.15706, algorithm 1).

    theta^m = AdamW^H(theta)                        each worker m alone
    Delta^m = theta - theta^m
    e^m     = beta e^m + Delta^m                    error feedback that decays stands for the outer momentum
    D^m     = Q(TopK(e^m));    e^m = e^m - D^m      k largest of each chunk, indices packed, values in 2 bits
    theta   = theta - alpha mean_m D^m              by an all-gather: sparse vectors do not add up on the way

The method of the Covenant-72B run. Chunks are consecutive numbers of the flat model; the paper's are 64 x 64 blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from algorithms.compressed.feedback import compressed_mean, gathered
from algorithms.compressed.gathering import GatheringMethod
from algorithms.compressed.payloads import TopK
from algorithms.inner import flatten
from algorithms.method import Options
from algorithms.outer_worker import OuterWorker
from algorithms.periodic import periodic
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan


class SparseLocoOptions(Options):
    sync_every: int = Field(default=30, ge=1, le=10**9)  # H
    chunk: int = Field(default=4096, ge=2, le=65536)
    k: int = Field(default=64, ge=1, le=10**9)  # of each chunk: 1.6 %
    bits: Literal[1, 2, 16, 32] = 2  # of a value
    feedback_decay: float = Field(default=0.95, ge=0, le=1)  # beta
    outer_lr: float = Field(default=1.0, gt=0, le=1e6)  # alpha

    @property
    def payload(self) -> TopK:
        return TopK(self.chunk, self.k, self.bits)


class SparseLoco(GatheringMethod[SparseLocoOptions]):
    name = "sparseloco"
    summary = "local AdamW; sparse 2-bit pseudo-gradients with error feedback"
    Options = SparseLocoOptions
    may_skip_steps = True

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        transfer = gathered("pseudo_gradient", self.options.payload, shape.count(), tuple(range(sites)))
        return Plan(sites, steps, periodic((transfer,), self.options.sync_every, steps))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = self.local_memory(shape)
        return {**found, "outer_parameters": size, "error_feedback": size}

    def worker(self, setup: WorkerSetup) -> Worker:
        return SparseLocoWorker(self, setup)


class SparseLocoWorker(OuterWorker):
    local = ("error_feedback",)

    def __init__(self, method: SparseLoco, setup: WorkerSetup) -> None:
        super().__init__(setup, "error_feedback")
        self.options = method.options

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        for transfer in self.setup.plan.at(step):
            delta = self.outer - flatten(self.parameters)
            mean = compressed_mean(
                self.setup.exchange,
                step,
                transfer,
                self.options.payload,
                delta,
                self.kept["error_feedback"],
                self.options.feedback_decay,
            )
            self.outer.sub_(mean, alpha=self.options.outer_lr)
            self.restart()


METHOD = SparseLoco
