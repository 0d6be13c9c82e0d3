"""The inner optimizer at work: built from its settings, clipped, stepped; its state as tensors. In the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from algorithms.optimizers import REGISTRY
from algorithms.settings import InnerOptimizer
from algorithms.shape import Parameter


def build_optimizer(
    settings: InnerOptimizer, parameters: Iterable[nn.Parameter], described: Sequence[Parameter] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of `algorithms.optimizers.REGISTRY`. `described`: the same parameters as the shape has them."""
    return REGISTRY[settings.name](settings, list(parameters), described)


def clip_gradients(settings: InnerOptimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Scale all gradients so that their global norm is at most `settings.clip`, or cut every coordinate at it."""
    if settings.clip and settings.clip_by == "norm":
        nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
    elif settings.clip:
        nn.utils.clip_grad_value_(parameters, settings.clip, foreach=True)


def update(settings: InnerOptimizer, optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One clipped step at learning rate `lr`; gradients are consumed."""
    clip_gradients(settings, [p for group in optimizer.param_groups for p in group["params"]])
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


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
