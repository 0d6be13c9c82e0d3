"""MuLoCo: DiLoCo with Muon inside and low-bit pseudo-gradients outside (Therien et al., arXiv 2505.23725).

    theta^m = Muon^H(theta)                         matrices orthogonalised, the rest AdamW's (algorithms.optimizers)
    a^m     = e^m + theta - theta^m;    D^m = Q(a^m);    e^m = a^m - D^m
    b       = mu b + mean_m D^m
    theta   = theta - eta (mean_m D^m + mu b)       Nesterov, as DiLoCo's

Q has 2 bits a number (or 1, or 4 and 8 with a scale per 256), with error feedback. Muon keeps one moment of a matrix
where AdamW keeps two.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from algorithms.compressed.feedback import compressed_mean, gathered
from algorithms.compressed.gathering import GatheringMethod
from algorithms.compressed.payloads import Dense, Packed, Payload
from algorithms.inner import flatten
from algorithms.method import Options
from algorithms.outer import nesterov_
from algorithms.outer_worker import OuterWorker
from algorithms.periodic import periodic
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, WireType


class MuLocoOptions(Options):
    sync_every: int = Field(default=30, ge=1, le=10**9)  # H
    bits: Literal[1, 2, 4, 8, 32] = 2
    chunk: int = Field(default=4096, ge=1, le=10**9)  # numbers that share a scale, at 1 and 2 bits
    outer_lr: float = Field(default=0.7, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)

    @property
    def payload(self) -> Payload:
        if self.bits in (1, 2):
            return Packed(1 if self.bits == 1 else 2, self.chunk)
        return Dense({4: WireType.FP4, 8: WireType.INT8, 32: WireType.FP32}[self.bits])


class MuLoco(GatheringMethod[MuLocoOptions]):
    name = "muloco"
    summary = "local Muon, outer Nesterov on 2-bit pseudo-gradients"
    Options = MuLocoOptions
    may_skip_steps = True
    preferred_inner = "muon"

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        transfer = gathered("pseudo_gradient", self.options.payload, shape.count(), tuple(range(sites)))
        return Plan(sites, steps, periodic((transfer,), self.options.sync_every, steps))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = self.local_memory(shape)
        return {**found, "outer_parameters": size, "outer_momentum": size, "error_feedback": size}

    def worker(self, setup: WorkerSetup) -> Worker:
        return MuLocoWorker(self, setup)


class MuLocoWorker(OuterWorker):
    local = ("error_feedback",)

    def __init__(self, method: MuLoco, setup: WorkerSetup) -> None:
        super().__init__(setup, "outer_momentum", "error_feedback")
        self.options = method.options

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        for transfer in self.setup.plan.at(step):
            delta = self.outer - flatten(self.parameters)
            payload, feedback = self.options.payload, self.kept["error_feedback"]
            mean = compressed_mean(self.setup.exchange, step, transfer, payload, delta, feedback)
            momentum = self.kept["outer_momentum"]
            nesterov_(self.outer, mean, momentum, self.options.outer_lr, self.options.outer_momentum)
            self.restart()


METHOD = MuLoco
