"""The mixture of experts against a reference that goes token by token."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from algorithms.method import ModelView
from algorithms.shape import ModelShape
from harness.worker.model import Mixture, build_model

SHAPE = ModelShape(
    kind="moe", layers=2, width=32, heads=2, experts=6, top_k=2, expert_width=16, vocabulary=64, sequence=16
)
SOME = ((0, 2, 5), (1, 2, 3))


def mixture(
    residents: tuple[int, ...] = tuple(range(6)), routing: Literal["full", "masked", "skip"] = "full", seed: int = 1
) -> Mixture:
    return Mixture(SHAPE, 0, seed, residents, routing).double()


def tokens(count: int = 50, seed: int = 0) -> Tensor:
    return torch.randn(1, count, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(x_SD: Tensor, whole: Mixture, allowed: set[int], present: set[int], k: int) -> Tensor:
    """y = sum of sigmoid(x . w_e) E_e(x) over the top k of `allowed` that are `present`."""
    rows = []
    for x in x_SD:
        scores = {e: float((x @ whole.router[e]).detach()) for e in allowed}
        y = torch.zeros_like(x)
        for e in sorted(scores, key=lambda e: -scores[e])[:k]:
            if e in present:
                y = y + torch.sigmoid(x @ whole.router[e]) * (F.silu(x @ whole.up[e]) @ whole.down[e])
        rows.append(y)
    return torch.stack(rows)


def test_each_token_gets_the_gated_sum_of_its_top_k_experts() -> None:
    x, part = tokens(), mixture()
    torch.testing.assert_close(part(x)[0], reference(x[0], part, set(range(6)), set(range(6)), 2))


def test_masked_routing_picks_among_residents() -> None:
    x = tokens()
    torch.testing.assert_close(mixture((0, 2, 5), "masked")(x)[0], reference(x[0], mixture(), {0, 2, 5}, {0, 2, 5}, 2))


def test_masked_routing_below_k_residents_uses_them_all() -> None:
    """Masked routing with fewer residents than k uses them all."""
    x = tokens()
    torch.testing.assert_close(mixture((4,), "masked")(x)[0], reference(x[0], mixture(), {4}, {4}, 1))


def test_skip_routing_picks_among_all_and_drops_absent_experts() -> None:
    x = tokens()
    torch.testing.assert_close(
        mixture((0, 2, 5), "skip")(x)[0], reference(x[0], mixture(), set(range(6)), {0, 2, 5}, 2)
    )


def test_the_work_follows_the_share_of_resident_choices() -> None:
    work = []
    for residents in (tuple(range(6)), (0, 2, 5)):
        part = mixture(residents, "skip")
        with FlopCounterMode(display=False) as counter:
            part(tokens(3000))
        work.append(counter.get_total_flops() - 2 * 3000 * 32 * 6)  # without the router
    whole, half = work
    assert half / whole == pytest.approx(1 - part.observed().ghost_share, rel=0.15)  # groups are filled up a little


@pytest.mark.parametrize("routing", ["full", "masked", "skip"])
def test_with_all_experts_every_routing_is_the_same(routing: Literal["full", "masked", "skip"]) -> None:
    everything = tuple(tuple(range(6)) for _ in range(2))
    inputs = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    found = build_model(SHAPE, 1, ModelView(everything, routing))(inputs)
    assert torch.equal(found, build_model(SHAPE, 1)(inputs))


def test_crowded_experts_give_the_same_sums() -> None:
    """One expert gets nearly all tokens: groups of very different sizes take another path."""
    x, part = tokens(400), mixture()
    with torch.no_grad():
        part.router[3] += 5 * x.mean(dim=(0, 1)) / x.mean(dim=(0, 1)).norm()
        x = x + x.mean(dim=(0, 1)) * 20
    y = part(x)
    assert max(part.observed().load) > 0.4
    torch.testing.assert_close(y[0], reference(x[0], part, set(range(6)), set(range(6)), 2))


def test_gradients_are_those_of_the_reference() -> None:
    x, part, same = tokens(), mixture((0, 2, 5), "skip"), mixture()
    weights = torch.randn(50, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x_part, x_same = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.autograd.backward((part(x_part)[0] * weights).sum())
    torch.autograd.backward((reference(x_same[0], same, set(range(6)), {0, 2, 5}, 2) * weights).sum())
    rows = [0, 2, 5]
    assert part.router.grad is not None
    assert part.up.grad is not None
    assert part.down.grad is not None
    assert same.router.grad is not None
    assert same.up.grad is not None
    assert same.down.grad is not None
    torch.testing.assert_close(x_part.grad, x_same.grad)
    torch.testing.assert_close(part.router.grad, same.router.grad)
    torch.testing.assert_close(part.up.grad, same.up.grad[rows])
    torch.testing.assert_close(part.down.grad, same.down.grad[rows])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient_without_residents(precision: torch.dtype) -> None:
    """Every parameter gets a gradient when no choice is resident."""
    part = Mixture(SHAPE, 0, 1, (5,), "skip")
    with torch.no_grad():
        part.router[5] = -10 * tokens().float()[0, 0]
    x = tokens().float()[:, :1].expand(1, 40, 32).clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        y = part(x)
    assert not y.any()
    y.sum().backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert part.observed().ghost_share == 1


def test_holders_of_an_expert_start_with_the_same_values() -> None:
    whole = build_model(SHAPE, 7)
    for routing in ("masked", "skip"):
        part = build_model(SHAPE, 7, ModelView(SOME, routing))
        for ids, mine, full in zip(SOME, part.mixtures(), whole.mixtures(), strict=True):
            rows = list(ids)
            assert torch.equal(mine.up, full.up[rows])
            assert torch.equal(mine.down, full.down[rows])
            assert torch.equal(mine.router, full.router[rows] if routing == "masked" else full.router)
        assert torch.equal(part.embedding.weight, whole.embedding.weight)


def test_a_part_is_smaller_by_what_it_does_not_hold() -> None:
    expert = 2 * 32 * 16
    whole, masked, skip = (
        sum(p.numel() for p in build_model(SHAPE, 1, view).parameters())
        for view in (ModelView(), ModelView(SOME, "masked"), ModelView(SOME, "skip"))
    )
    assert whole - skip == 2 * 3 * expert
    assert skip - masked == 2 * 3 * 32


def test_changing_residents_keeps_values_and_parameter_objects() -> None:
    model, whole = build_model(SHAPE, 1, ModelView(SOME, "masked")), build_model(SHAPE, 1)
    first = model.mixtures()[0]
    before = (first.router, first.up, first.down)
    with torch.no_grad():
        first.up[1] = 42.0  # expert 2
    assert model.set_residents(0, (1, 2, 5)) == (1,)
    assert all(a is b for a, b in zip((first.router, first.up, first.down), before, strict=True))
    assert bool((first.up[1] == 42).all())
    reference = whole.mixtures()[0]
    assert torch.equal(first.up[0], reference.up[1])
    assert torch.equal(first.down[2], reference.down[5])
    assert torch.equal(first.router, reference.router[[1, 2, 5]])
    assert model.set_residents(0, (5,)) == ()
    assert first.up.shape == (1, 32, 16)
    inputs = torch.randint(0, 64, (2, 16))
    model(inputs, inputs).backward()
    assert first.up.grad is not None
    assert first.up.grad.shape == first.up.shape


@pytest.mark.parametrize("residents", [(), (2, 1), (1, 1), (6,), (-1, 2)])
def test_wrong_residents_are_refused(residents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="residents"):
        mixture((0, 1), "skip").set_residents(residents)


def test_full_routing_needs_all_experts() -> None:
    """Full routing needs all experts and a dense model has none."""
    with pytest.raises(ValueError, match="all experts"):
        build_model(SHAPE, 1, ModelView(SOME, "full"))
    with pytest.raises(ValueError, match="residents"):
        build_model(ModelShape(layers=2, width=32, heads=2), 1, ModelView(SOME, "skip"))
    with pytest.raises(ValueError, match="residents"):
        build_model(SHAPE, 1, ModelView(SOME[:1], "skip"))


def test_routing_counts_every_training_choice_once() -> None:
    part, x = mixture((0, 2, 5), "skip"), tokens(200)
    part(x)
    part(x)
    part.eval()
    part(x)
    found = part.observed()
    chosen = (x[0] @ part.router.T).topk(2).indices.flatten().tolist()
    assert found.ghost_share == pytest.approx(sum(e not in (0, 2, 5) for e in chosen) / 400)
    assert found.load == pytest.approx([chosen.count(e) / 400 * (e in (0, 2, 5)) for e in range(6)])
    assert 0.8 < found.entropy <= 1
    assert part.observed().ghost_share == 0  # counting starts again


def test_the_regulariser_is_lowest_for_even_routing() -> None:
    model = build_model(SHAPE, 1)
    inputs = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
    assert float(model(inputs, inputs).detach()) == model.last_loss
    model.balance_weight = 0.1
    objective = float(model(inputs, inputs).detach())
    even = -2 * 0.1 * torch.tensor(6.0).log()
    assert even < objective - model.last_loss < 0
    assert objective - model.last_loss == pytest.approx(float(even), rel=0.05)
    model(inputs)
    assert float(model.auxiliary_loss().detach()) == pytest.approx(objective - model.last_loss, rel=1e-5)
    assert float(model.auxiliary_loss()) == 0  # once per pass
    with torch.no_grad():
        for part in model.mixtures():
            part.router.zero_()
    assert float(model(inputs, inputs).detach()) - model.last_loss == pytest.approx(float(even), rel=1e-5)


def test_training_with_the_regulariser_evens_the_routing() -> None:
    imbalances = {}
    for weight in (0.0, 1.0):
        model = build_model(SHAPE, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        inputs = torch.randint(0, 64, (8, 16), generator=torch.Generator().manual_seed(0))
        model.balance_weight = weight
        for _ in range(30):
            optimizer.zero_grad()
            model(inputs, inputs).backward()
            optimizer.step()
        model.balance_weight = 1.0
        model(inputs)
        imbalances[weight] = float(model.auxiliary_loss().detach())
    assert imbalances[1.0] < imbalances[0.0] - 1e-3
