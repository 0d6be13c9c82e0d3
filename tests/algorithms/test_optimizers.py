"""Inner optimizers against their formulas, and what they keep against what is predicted."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.inner import build_optimizer, clip_gradients, moment_bytes
from algorithms.method import find
from algorithms.optimizers import REGISTRY, newton_schulz
from algorithms.settings import InnerOptimizer, LearningRateSchedule
from netsim.errors import InputError
from netsim.library import ROOT
from tests.algorithms.training import DENSE, MOE, train

LR, STEPS = 1e-2, 5


def stepped(settings: InnerOptimizer) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Start, gradients and end of five steps of one matrix."""
    generator = torch.Generator().manual_seed(3)
    x = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    start, gradients = x.detach().numpy().copy(), []
    optimizer = build_optimizer(settings, [x])
    for _ in range(STEPS):
        x.grad = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        gradients.append(x.grad.numpy().copy())
        optimizer.step()
    return start, gradients, x.detach().numpy()


def test_lion_moves_by_the_sign_of_its_interpolation() -> None:
    x, gradients, found = stepped(InnerOptimizer(name="lion", lr=LR, betas=(0.9, 0.99), weight_decay=0.1))
    m = np.zeros_like(x)
    for g in gradients:
        x = x * (1 - LR * 0.1) - LR * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(found, x, atol=1e-12)


def test_adopt_normalises_by_the_moment_before_this_gradient() -> None:
    x, gradients, found = stepped(InnerOptimizer(name="adopt", lr=LR, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.0))
    m, v = np.zeros_like(x), gradients[0] ** 2
    for t, g in enumerate(gradients[1:], start=1):
        m = 0.9 * m + 0.1 * np.clip(g / np.maximum(np.sqrt(v), 1e-6), -(t**0.25), t**0.25)
        x = x - LR * m
        v = 0.99 * v + 0.01 * g**2
    np.testing.assert_allclose(found, x, atol=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_adamw_and_sgd_step_as_torchs_own_to_the_bit(name: Literal["adamw", "sgd"]) -> None:
    settings = InnerOptimizer(name=name, lr=LR, weight_decay=0.1)
    start, gradients, found = stepped(settings)
    x = nn.Parameter(torch.from_numpy(start.copy()))
    own: torch.optim.Optimizer = torch.optim.SGD([x], lr=LR)
    if name == "adamw":
        own = torch.optim.AdamW([x], LR, settings.betas, settings.eps, settings.weight_decay, foreach=True)
    for gradient in gradients:
        x.grad = torch.from_numpy(gradient.copy())
        own.step()
    assert np.array_equal(found, x.detach().numpy())


STEP = """
import sys, torch
from algorithms.inner import build_optimizer, load_optimizer_tensors, optimizer_tensors, update
from algorithms.settings import InnerOptimizer
settings = InnerOptimizer(name=sys.argv[1])
x = torch.nn.Parameter(torch.ones(3))
optimizer = build_optimizer(settings, [x])
x.grad = torch.ones(3)
update(settings, optimizer, 0.1)
load_optimizer_tensors(optimizer, optimizer_tensors(optimizer))
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_an_optimizer_imports_no_compiler(name: str) -> None:
    """It would be a third of the time that a trainer takes to start."""
    done = subprocess.run([sys.executable, "-c", STEP, name], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_newton_schulz_brings_singular_values_near_one() -> None:
    matrices = torch.randn(5, 24, 10, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(newton_schulz(matrices))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize("method", ["diloco", "ddp", "photon", "streaming_diloco"])
def test_memory_under_every_inner_optimizer_is_predicted(name: str, method: str) -> None:
    settings = InnerOptimizer(name=name, lr=1e-3)  # type: ignore[arg-type]  # the registry's names are the literals
    shape = MOE if method == "diloco" else DENSE
    found = train(method, {}, shape, sites=2, steps=2, double=False, optimizer=settings)
    for rank, site in enumerate(found.sites):
        assert site.memory == found.method.memory(shape, 2, rank, 1)
        assert moment_bytes(site.worker.optimizer) == 4 * settings.moment_elements(shape.parameters)  # type: ignore[attr-defined]  # of all four methods


@pytest.mark.parametrize("name", ["muon", "adopt", "lion"])
def test_a_checkpoint_keeps_the_inner_optimizers_state(name: str) -> None:
    settings = InnerOptimizer(name=name, lr=1e-3)  # type: ignore[arg-type]  # as above
    straight = train("diloco", {"sync_every": 3}, steps=6, optimizer=settings)
    resumed = train("diloco", {"sync_every": 3}, steps=6, optimizer=settings, resume_at=4)
    for one, other in zip(straight.sites, resumed.sites, strict=True):
        assert torch.equal(one.parameters, other.parameters)


def test_a_method_may_name_its_inner_optimizer() -> None:
    method = find("diloco", {"inner_optimizer": "muon"}, "test")
    assert method.inner.name == "muon"
    assert method.memory(DENSE, 4)["inner_moments"] < find("diloco", {}, "test").memory(DENSE, 4)["inner_moments"]
    assert method.flops_per_step(DENSE, 4) > find("diloco", {}, "test").flops_per_step(DENSE, 4) == 0


@pytest.mark.parametrize(("method", "name"), [("lordo", "muon"), ("local_adam", "lion"), ("fomoe", "muon")])
def test_methods_refuse_optimizers_whose_state_they_cannot_send(method: str, name: str) -> None:
    with pytest.raises(InputError, match="optimizer.name"):
        find(method, {}, "suite.yaml", InnerOptimizer(name=name))  # type: ignore[arg-type]  # as above


def test_clipping_by_value_cuts_coordinates_and_by_norm_scales() -> None:
    def clipped(by: str) -> list[float]:
        x = nn.Parameter(torch.zeros(2))
        x.grad = torch.tensor([3.0, 0.4])
        clip_gradients(InnerOptimizer(clip=1.0, clip_by=by), [x])  # type: ignore[arg-type]  # "value" or "norm"
        return [round(value, 4) for value in x.grad.tolist()]

    assert clipped("value") == [1.0, 0.4]
    assert clipped("norm") == [0.9912, 0.1322]


def test_schedules_warm_up_and_end_where_they_say() -> None:
    kinds = {kind: LearningRateSchedule(1.0, 10, 100, 0.1, kind, 0.2) for kind in ("cosine", "linear", "wsd")}
    for schedule in (*kinds.values(), LearningRateSchedule(1.0, 10, 100, 0.1, "constant")):
        assert schedule.lr(5) == 0.5
        assert schedule.lr(10) == 1.0
    assert [round(schedule.lr(100), 6) for schedule in kinds.values()] == [0.1, 0.1, 0.1]
    assert kinds["wsd"].lr(80) == 1.0
    assert kinds["wsd"].lr(90) == pytest.approx(0.55)
    assert LearningRateSchedule(1.0, 10, 100, 0.1, "constant").lr(100) == 1.0
