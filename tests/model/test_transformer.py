"""The torch modules against the sizes that `ModelShape` counts."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from algorithms.shape import ModelShape
from harness.worker.model import build_model
from harness.worker.model.attention import Attention, RmsNorm, Rotary

SMALL: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 64, "sequence": 16}
SHAPES = {
    "dense": ModelShape(**SMALL),
    "gated": ModelShape(**SMALL, gated=True, ffn_width=48),
    "peri": ModelShape(**SMALL, norm="peri"),
    "untied": ModelShape(**SMALL, tied=False),
    "grouped": ModelShape(**SMALL, key_value_heads=1, rotary_base=500_000.0),
    "moe": ModelShape(**SMALL, kind="moe", experts=4, top_k=2),
    "moe peri untied": ModelShape(**SMALL, kind="moe", experts=4, top_k=1, norm="peri", tied=False),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_parameters_are_those_of_the_shape_in_its_order(shape: ModelShape) -> None:
    found = [(name, tuple(p.shape)) for name, p in build_model(shape, 1).named_parameters()]
    assert found == [(p.name, p.shape) for p in shape.parameters]


START = """
import sys
import harness.worker_main
from harness.spec.presets import find_model
from harness.worker.model import build_model
build_model(find_model("tiny-moe", "here"), 1)
print(sorted({"networkx", "sympy", "torch._dynamo"} & sys.modules.keys()))
"""


def test_a_trainer_builds_its_model_without_a_compiler() -> None:
    """Nor with a library of graphs or of algebra: these would be a third of the time that it takes to start."""
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_untrained_model_knows_nothing(shape: ModelShape) -> None:
    tokens = torch.randint(0, shape.vocabulary, (4, 16), generator=torch.Generator().manual_seed(0))
    loss = build_model(shape, 1).loss(tokens, tokens.roll(-1, 1))
    assert float(loss.detach()) == pytest.approx(
        math.log(shape.vocabulary) + 0.5**2 / 2, rel=0.05
    )  # logits of N(0, 0.5^2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_token_sees_a_later_one(shape: ModelShape, precision: str) -> None:
    model = build_model(shape, 1)
    tokens = torch.randint(0, shape.vocabulary, (2, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % shape.vocabulary
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits_in_training(shape: ModelShape, precision: str) -> None:
    def train(seed: int) -> list[float]:
        model = build_model(shape, seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for step in range(5):
            tokens = torch.randint(0, shape.vocabulary, (4, 16), generator=torch.Generator().manual_seed(step))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                objective = model(tokens, tokens)
            objective.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(model.last_loss)
        return losses

    assert train(1) == train(1) != train(2)
    assert train(1)[-1] < train(1)[0]


def test_initial_values_need_no_global_generator() -> None:
    torch.manual_seed(1)
    first, state = build_model(SHAPES["moe"], 3), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = build_model(SHAPES["moe"], 3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["dense", "peri", "moe"])
def test_training_in_bf16_follows_the_gradient_of_fp32(kind: str) -> None:
    tokens = torch.randint(0, 64, (8, 16), generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (False, True):
        model = build_model(SHAPES[kind], 1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            objective = model(tokens, tokens)
        objective.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    exact, rounded = gradients
    assert float(torch.nn.functional.cosine_similarity(exact, rounded, dim=0)) > (
        0.98 if kind == "moe" else 0.999
    )  # close scores route otherwise


def test_positions_are_relative() -> None:
    """Attention between two tokens depends on their distance: shifting both leaves the score as it was."""
    rotary = Rotary(64, 8).double()
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned_query, turned_key = (rotary(x.expand(1, 64, 1, 8))[0, :, 0] for x in (query, key))
    scores = turned_query @ turned_key.T
    for distance in (0, 1, 7, 30):
        along = scores.diagonal(offset=distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-6)
    assert not torch.allclose(scores[0, 0], scores[0, 7])


def test_the_norm_is_torchs_with_its_gradient() -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    ours, theirs = RmsNorm(8).double(), torch.nn.RMSNorm(8, eps=1e-5).double()
    with torch.no_grad():
        ours.weight.copy_(torch.arange(1.0, 9.0))
        theirs.weight.copy_(torch.arange(1.0, 9.0))
    torch.testing.assert_close(ours(x), theirs(x))
    assert torch.autograd.gradcheck(ours, (x,))
    ours(x).square().sum().backward()
    theirs(x.detach()).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_bf16_attention_is_attention() -> None:
    attention, rotary = Attention(32, 4), Rotary(16, 8)
    for part in (attention.query, attention.key, attention.value, attention.output):
        torch.nn.init.normal_(part.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        training = attention(x, rotary)
        with torch.no_grad():
            fused = attention(x, rotary)
    torch.testing.assert_close(training, fused, rtol=0.02, atol=0.02)
    torch.testing.assert_close(training.float(), attention(x, rotary), rtol=0.02, atol=0.02)


def test_a_model_in_use_can_be_copied() -> None:
    model = build_model(SHAPES["moe"], 1)
    model.balance_weight = 0.1
    tokens = torch.randint(0, 64, (2, 16))
    model(tokens, tokens).backward()
    assert torch.equal(copy.deepcopy(model)(tokens), model(tokens))


def test_float64_stays_float64() -> None:
    tokens = torch.randint(0, 64, (2, 16))
    for shape in SHAPES.values():
        assert build_model(shape, 1).double()(tokens, tokens).dtype == torch.float64
