"""The torch modules against the sizes that `ModelShape` counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.shape import ModelShape
from harness.model import build_model

SMALL: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 64, "sequence": 16}
SHAPES = {
    "dense": ModelShape(**SMALL),
    "gated": ModelShape(**SMALL, gated=True, ffn_width=48),
    "peri": ModelShape(**SMALL, norm="peri"),
    "untied": ModelShape(**SMALL, tied=False),
    "moe": ModelShape(**SMALL, kind="moe", experts=4, top_k=2),
    "moe peri untied": ModelShape(**SMALL, kind="moe", experts=4, top_k=1, norm="peri", tied=False),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_parameters_are_those_of_the_shape_in_its_order(shape: ModelShape) -> None:
    found = [(name, tuple(p.shape)) for name, p in build_model(shape, 1).named_parameters()]
    assert found == [(p.name, p.shape) for p in shape.parameters]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_untrained_model_knows_nothing(shape: ModelShape) -> None:
    tokens = torch.randint(0, shape.vocabulary, (4, 16), generator=torch.Generator().manual_seed(0))
    loss = build_model(shape, 1).loss(tokens, tokens.roll(-1, 1))
    assert float(loss.detach()) == pytest.approx(math.log(shape.vocabulary), rel=0.05)
