"""What methods know of the training inside a site, as data: the inner optimizer and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from pydantic import Field

from algorithms.shape import Parameter, Role
from netsim.documents import Document

OptimizerName = Literal["adamw", "sgd", "muon", "adopt", "lion"]
ScheduleName = Literal["cosine", "constant", "wsd", "linear"]

MATRICES = (Role.ATTENTION, Role.FFN, Role.EXPERT)  # what Muon orthogonalises; the rest is AdamW's
SLOTS = {"adamw": 2, "adopt": 2, "lion": 1, "sgd": 0}  # moments per number of a parameter
NEWTON_SCHULZ_STEPS = 5


class InnerOptimizer(Document):
    """The optimizer inside a site; its update rules stand in `algorithms.optimizers`.

    betas: of adamw, adopt and lion, and of the parameters that muon leaves to AdamW.   momentum: muon's.
    clip: of the gradient, 0 for none; `clip_by: norm` scales it to this global norm, `value` cuts every coordinate at
    it, as DES-LOC does (arXiv 2505.22549, algorithm 1).
    """

    name: OptimizerName = "adamw"
    lr: float = Field(default=3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)
    clip_by: Literal["norm", "value"] = "norm"

    def moment_elements(self, parameters: Iterable[Parameter]) -> int:
        """Numbers in the moments of these parameters; step counters are not counted."""
        if self.name == "muon":
            return sum(p.elements * (1 if p.role in MATRICES else 2) for p in parameters)
        return SLOTS[self.name] * sum(p.elements for p in parameters)

    def counters(self, parameters: Iterable[Parameter]) -> int:
        """Step counters that the optimizer keeps, one for each parameter that needs bias correction."""
        if self.name == "muon":
            return sum(p.role not in MATRICES for p in parameters)
        return len(list(parameters)) if SLOTS[self.name] == 2 else 0

    def flops_per_step(self, parameters: Iterable[Parameter]) -> float:
        """FLOPs of one step's matrix products: Muon's Newton-Schulz iterations, 4 p^2 q + 2 p^3 each for a p x q matrix
        with p <= q. Elementwise work is not counted, as nowhere in this project."""
        if self.name != "muon":
            return 0.0
        total = 0.0
        for parameter in parameters:
            if parameter.role in MATRICES:
                short, long = sorted(parameter.shape[-2:])
                batch = parameter.elements // (short * long)
                total += batch * NEWTON_SCHULZ_STEPS * (4.0 * short**2 * long + 2.0 * short**3)
        return total


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up to `peak`, then by `kind` to `floor` x peak at step `total`. Steps count from 1.

    cosine: half a cosine.   linear: a straight line.   constant: stays at the peak.
    wsd: stays at the peak until the last `decay` of the steps, then a straight line (Hu et al., arXiv 2404.06395).
    """

    peak: float
    warmup: int
    total: int
    floor: float = 0.1
    kind: ScheduleName = "cosine"
    decay: float = 0.1

    def lr(self, step: int) -> float:
        if step <= self.warmup:
            return self.peak * step / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        if self.kind == "cosine":
            return self.peak * (self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2)
        if self.kind == "constant":
            return self.peak
        if self.kind == "wsd":
            cooldown = self.decay * self.total
            progress = min(1.0, max(0.0, (step - (self.total - cooldown)) / cooldown)) if cooldown else 0.0
        return self.peak * (1 - (1 - self.floor) * progress)
