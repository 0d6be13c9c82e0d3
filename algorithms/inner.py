"""What all methods share inside a site: the inner optimizer's settings, its learning-rate schedule, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import cos, pi

import torch
from pydantic import Field
from torch import Tensor, nn

from netsim.documents import Document


class InnerOptimizer(Document):
    """AdamW (Loshchilov and Hutter 2019), or plain SGD for exactness tests. `clip`: global norm, 0 for none."""

    name: str = Field(default="adamw", pattern="^(adamw|sgd)$")
    lr: float = Field(default=3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, ge=0)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Weight decay applies to matrices only, as is customary."""
        everything = list(parameters)
        if self.name == "sgd":
            return torch.optim.SGD(everything, lr=self.lr)
        groups = [
            {"params": [p for p in everything if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in everything if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, foreach=True)

    def clip_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale all gradients so that their global norm is at most `clip`."""
        if self.clip:
            nn.utils.clip_grad_norm_(parameters, self.clip, foreach=True)

    def update(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        """One clipped step at learning rate `lr`; gradients are consumed."""
        self.clip_gradients([p for group in optimizer.param_groups for p in group["params"]])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Schedule:
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


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One contiguous copy of all tensors, (sum of elements,)."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def unflatten_into(tensors: Iterable[Tensor], flat: Tensor) -> None:
    """Copy consecutive parts of `flat` into the tensors."""
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()
    assert start == flat.numel()


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Storage that the tensors hold, bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `inner.<index of the parameter>.<entry>`."""
    entries = optimizer.state_dict()["state"]
    return {f"inner.{index}.{key}": value for index, entry in entries.items() for key, value in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("inner."):
            _, index, key = name.split(".")
            entries.setdefault(int(index), {})[key] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def moment_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the moments; the step counters, one number each, are not counted."""
    return tensor_bytes(t for entry in optimizer.state.values() for t in entry.values() if t.numel() > 1)
