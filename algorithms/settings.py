"""What all methods are told of the training inside a site, as data: the inner optimizer and its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from pydantic import Field

from netsim.documents import Document


class InnerOptimizer(Document):
    """AdamW (Loshchilov and Hutter 2019), or plain SGD for exactness tests. `clip`: global norm, 0 for none."""

    name: str = Field(default="adamw", pattern="^(adamw|sgd)$")
    lr: float = Field(default=3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up to `peak`, then a cosine to `floor` x peak at step `total`. Steps count from 1."""

    peak: float
    warmup: int
    total: int
    floor: float = 0.1

    def lr(self, step: int) -> float:
        if step <= self.warmup:
            return self.peak * step / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.peak * (self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2)
