"""The parts that methods share: placements, outer optimizers, subspaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.lowrank import Batch, basis
from algorithms.outer import OuterName, OuterOptimizer
from algorithms.placement import Placement
from netsim.errors import InputError


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    sites, experts = draw(st.integers(1, 12)), draw(st.integers(1, 24))
    fitting = [r for r in range(1, sites + 1) if r * experts % sites == 0]
    seed = draw(st.none() | st.integers(0, 5))
    return Placement(draw(st.integers(1, 4)), experts, sites, draw(st.sampled_from(fitting)), 3, seed)


@given(placements(), st.integers(0, 7))
def test_every_expert_is_on_exactly_o_e_workers(placement: Placement, draw: int) -> None:
    """Every expert is on exactly o e workers and every worker holds n le."""
    residents = [placement.residents(worker, draw) for worker in range(placement.sites)]
    for layer in range(placement.layers):
        held = [expert for worker in residents for expert in worker[layer]]
        assert np.bincount(held, minlength=placement.experts).tolist() == [placement.replication] * placement.experts
        assert all(len(set(worker[layer])) == placement.resident for worker in residents)
    assert len(placement.groups) <= max(1, min(placement.sites, placement.experts))


@given(placements(), st.integers(0, 7))
def test_an_expert_group_has_exactly_its_holders(placement: Placement, draw: int) -> None:
    """A groups experts are those that all its holders have and nobody else."""
    residents = [placement.residents(worker, draw) for worker in range(placement.sites)]
    for holders in placement.groups:
        for layer, experts in enumerate(placement.members(holders, draw)):
            for expert in experts:
                assert [w for w in range(placement.sites) if expert in residents[w][layer]] == list(holders)


@given(placements(), st.integers(0, 7))
def test_an_expert_moves_from_a_holder_to_all_that_lack_it(placement: Placement, draw: int) -> None:
    before = [placement.residents(worker, draw) for worker in range(placement.sites)]
    after = [placement.residents(worker, draw + 1) for worker in range(placement.sites)]
    received: set[tuple[int, int, int]] = set()
    for move, pairs in placement.moves(draw):
        assert move.experts == len(pairs)
        for layer, expert in pairs.tolist():
            assert expert in before[move.root][layer]
            received |= {(worker, layer, expert) for worker in move.newcomers}
    assert received == {
        (worker, layer, expert)
        for worker in range(placement.sites)
        for layer in range(placement.layers)
        for expert in set(after[worker][layer]) - set(before[worker][layer])
    }


def test_a_random_redraw_misses_with_the_stated_probability() -> None:
    """A random redraw misses residents with probability 1 minus o e over m."""
    placement = Placement(layers=64, experts=64, sites=8, replication=2, draws=16, seed=7)
    missed = [
        len(set(new) - set(old)) / len(new)
        for draw in range(8)
        for old, new in zip(placement.residents(3, draw), placement.residents(3, draw + 1), strict=True)
    ]
    assert np.mean(missed) == pytest.approx(1 - 2 / 8, abs=0.02)


def test_fixed_windows_of_neighbours_overlap() -> None:
    placement = Placement(layers=1, experts=8, sites=4, replication=2)
    assert [placement.residents(worker, 0)[0] for worker in range(4)] == [
        (0, 1, 2, 3),
        (2, 3, 4, 5),
        (4, 5, 6, 7),
        (0, 1, 6, 7),
    ]


@pytest.mark.parametrize("replication", [0, 5])
def test_a_replication_outside_the_sites_is_refused(replication: int) -> None:
    with pytest.raises(InputError, match="from 1 to the 4 sites"):
        Placement(1, 8, 4, replication)


ETA, MU, B1, B2, TAU = 0.3, 0.8, 0.9, 0.99, 1e-3


@pytest.mark.parametrize("name", ["fedavg", "nesterov", "fedmom", "fedadam", "fedyogi"])
def test_outer_optimizers_follow_their_formulas(name: OuterName) -> None:
    optimizer = OuterOptimizer(name=name, lr=ETA, momentum=MU, betas=(B1, B2), tau=TAU)
    found = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    state = optimizer.start(found)
    x, m, v, ahead = found.numpy().copy(), np.zeros(3), np.full(3, TAU**2), found.numpy().copy()
    for step in range(1, 6):
        g = np.array([math.sin(step), math.cos(3 * step), 0.1 * step])
        optimizer.step(found, torch.tensor(g), state)
        if name == "fedavg":
            x = x - g
        elif name == "nesterov":
            m = MU * m + g
            x = x - ETA * (g + MU * m)
        elif name == "fedmom":
            new = x - ETA * g
            x, ahead = (1 + MU) * new - MU * ahead, new
        else:
            delta = -g  # Reddi et al. speak of the mean change, the opposite of the pseudo-gradient
            m = B1 * m + (1 - B1) * delta
            v = B2 * v + (1 - B2) * delta**2 if name == "fedadam" else v - (1 - B2) * delta**2 * np.sign(v - delta**2)
            x = x + ETA * m / (np.sqrt(v) + TAU)
        np.testing.assert_allclose(found.numpy(), x, rtol=0, atol=1e-14)
    assert tuple(state) == optimizer.slots


def test_a_basis_is_the_leading_left_singular_vectors() -> None:
    """A basis is the leading left singular vectors of every matrix."""
    generator = torch.Generator().manual_seed(3)
    sources = torch.randn(5, 6, 9, generator=generator, dtype=torch.float64)
    found = basis(sources, torch.zeros(5, 6, 2, dtype=torch.float64))
    for matrix, q in zip(sources, found, strict=True):
        kept = (q.T @ matrix).square().sum()
        assert float(kept) == pytest.approx(float((torch.linalg.svdvals(matrix)[:2] ** 2).sum()))


def test_a_matrix_without_a_direction_keeps_its_basis() -> None:
    sources = torch.stack([torch.zeros(4, 5), torch.full((4, 5), float("nan")), torch.randn(4, 5)])
    old = torch.eye(4, 2).expand(3, -1, -1).clone()
    found = basis(sources, old)
    assert torch.equal(found[:2], old[:2])
    assert found.isfinite().all()
    assert not torch.equal(found[2], old[2])


def test_matrices_of_one_size_are_one_batch() -> None:
    """Matrices of one size are one batch whichever way they lie."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 6), (6, 4), (3, 6, 4), (2, 4, 6)]
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    batch = Batch(parameters, rank=2, feedback=True)
    stacked = batch.stack(parameters)
    assert stacked.shape == (1 + 1 + 3 + 2, 4, 6)
    for back, parameter in zip(batch.unstack(stacked), parameters, strict=True):
        assert torch.equal(back, parameter)
    square = Batch([torch.nn.Parameter(torch.randn(4, 4, generator=generator))], rank=9, feedback=False)
    assert torch.equal(square.unstack(square.stack(square.parameters))[0], square.parameters[0])
