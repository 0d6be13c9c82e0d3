"""The model that a run trains, ours or somebody's own, and how its output is scored. In the trainer process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.method import ModelView
from algorithms.own_model import own_module
from algorithms.own_model.module_shape import ModuleShape
from algorithms.shape import ModelShape
from harness.worker.model.transformer import Transformer, build_model, mean_loss


@dataclass(frozen=True)
class TrainedModel:
    """`module` in fp32 on the CPU, the same bits for the same seed."""

    module: nn.Module
    seed: int

    def begin(self, step: int, rank: int, member: int) -> None:
        """Somebody's own module may draw at random, as dropout does: from step and worker alone."""
        if not isinstance(self.module, Transformer):
            digest = hashlib.blake2b(f"{self.seed} {step} {rank} {member}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "big") >> 1)

    def loss(self, output: Any, targets_BT: Tensor) -> Tensor:
        """Mean loss over the targets, nats per token unless the module has a loss of its own."""
        if isinstance(self.module, Transformer):
            return mean_loss(output, targets_BT)
        return own_module.loss(self.module, output, targets_BT)

    def auxiliary_loss(self) -> Tensor | float:
        """What is added for training alone."""
        if isinstance(self.module, Transformer):
            return self.module.auxiliary_loss()
        return own_module.auxiliary_loss(self.module)


def build_trained_model(shape: ModelShape, seed: int, view: ModelView, balance_weight: float) -> TrainedModel:
    """InputError for a module whose file has changed."""
    if isinstance(shape, ModuleShape):
        return TrainedModel(own_module.build(shape, seed), seed)
    model = build_model(shape, seed, view)
    model.balance_weight = balance_weight
    return TrainedModel(model, seed)
