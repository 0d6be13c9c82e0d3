"""Compressed, gossiping and eager methods against what they reduce to, and against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from algorithms.compressed.feedback import compressed_mean, gathered
from algorithms.compressed.payloads import TopK
from algorithms.exchange import local_group
from algorithms.method import find
from algorithms.methods.async_diloco import AsyncDiloco
from algorithms.methods.demo import dct_basis
from algorithms.methods.noloco import NoLoco
from netsim.errors import InputError
from tests.algorithms.test_update_rules import STEPS, Adam, gradients, rates, run, same, start
from tests.algorithms.training import DENSE, Training, train

AVERAGING = {"outer_lr": 1.0, "outer_momentum": 0.0}


def close(one: Training, other: Training, tolerance: float = 1e-5) -> None:
    for mine, theirs in zip(one.sites, other.sites, strict=True):
        np.testing.assert_allclose(mine.parameters, theirs.parameters, rtol=0, atol=tolerance)


def test_sparseloco_that_keeps_every_number_is_plain_averaging() -> None:
    sparse = train("sparseloco", {"sync_every": 3, "chunk": 16, "k": 16, "bits": 32})
    close(sparse, train("diloco", {"sync_every": 3, **AVERAGING}))


def test_muloco_without_muon_and_quantisation_is_diloco() -> None:
    options = {"sync_every": 3, "bits": 32, "inner_optimizer": "adamw"}
    close(train("muloco", options), train("diloco", {"sync_every": 3}))


def test_powersgd_at_full_rank_is_ddp() -> None:
    close(train("powersgd", {"rank": 64}), train("ddp", {}), 1e-9)


def test_powersgd_sends_rank_times_both_sides() -> None:
    plan = find("powersgd", {"rank": 2}, "test").plan(DENSE, 3, 1)
    matrices = [p for p in DENSE.parameters if p.layer is not None and len(p.shape) == 2]
    left, right = plan.at(1)
    whole = DENSE.count() - sum(p.elements for p in matrices)
    assert left.elements == whole + sum(2 * p.shape[0] for p in matrices)
    assert right.elements == sum(2 * p.shape[1] for p in matrices)
    assert (left.phase, right.phase) == (0, 1)


def test_demo_that_sends_every_component_is_a_sign_step() -> None:
    found = run("demo", {"chunk": 32, "k": 32, "bits": 32})
    x = start(found)
    for t in range(STEPS):
        x = x - rates()[t] * np.sign(np.mean([rank[t] for rank in gradients(found)], axis=0))
    for site in found.sites:
        agreeing = np.abs(site.parameters.numpy() - x) < 1e-6
        assert agreeing.mean() > 0.98  # the fp32 payload may turn the sign of a mean near zero


def test_the_dct_is_orthonormal() -> None:
    basis = dct_basis(64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(64, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_compression_leaves_out_comes_later() -> None:
    """Sum of all that was sent, plus the error at the end, is the sum of all that was to be sent."""
    (exchange,) = local_group(1)
    payload = TopK(50, 4)
    transfer, feedback = gathered("x", payload, 300, (0,)), torch.zeros(300)
    total, sent = torch.zeros(300), torch.zeros(300)
    for step in range(1, 30):
        values = torch.randn(300, generator=torch.Generator().manual_seed(step))
        total += values
        sent += compressed_mean(exchange, step, transfer, payload, values, feedback)
    torch.testing.assert_close(sent + feedback, total, atol=1e-4, rtol=0)
    assert not torch.allclose(sent, total, atol=0.5)


def test_noloco() -> None:
    found = run("noloco", {"sync_every": 2}, sites=3)
    method = found.method
    assert isinstance(method, NoLoco)
    phi, local = [start(found)] * 3, [start(found)] * 3
    delta, adams = [np.zeros(len(phi[0])) for _ in range(3)], [Adam(len(phi[0])) for _ in range(3)]
    for t in range(1, STEPS + 1):
        local = [x - rates()[t - 1] * a.step(g[t - 1]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        if t % 2 and t != STEPS:
            continue
        moved, before = [phi[m] - local[m] for m in range(3)], list(phi)
        for pair in method.pairs(t, 3, 1):
            for m in pair:
                mean, centre = (np.mean([v[k] for k in pair], axis=0) for v in (moved, before))
                delta[m] = 0.5 * delta[m] + 0.7 * mean + 1.0 * (before[m] - centre)
                phi[m] = before[m] - delta[m]
        local = list(phi)
    same(found, local)


def test_a_worker_of_noloco_waits_for_one_other_at_most() -> None:
    plan = find("noloco", {"sync_every": 2}, "test").plan(DENSE, 5, 6, 3)
    for step in (2, 4, 6):
        pairs = [transfer.members for transfer in plan.at(step)]
        assert all(len(pair) == 2 for pair in pairs)
        assert len({rank for pair in pairs for rank in pair}) == 4
    assert len({plan.at(step)[0].members for step in (2, 4, 6)}) > 1


def test_async_diloco() -> None:
    """Arrivals one by one, in the order of their steps and then of their ranks; delayed Nesterov over three of them."""
    found = run("async_diloco", {"sync_every": 2, "spread": 0.25})
    x = start(found)
    server, momentum, buffer, arrived = x.copy(), np.zeros(len(x)), np.zeros(len(x)), 0
    local, fetched, adams = [x.copy() for _ in range(3)], [x.copy() for _ in range(3)], [Adam(len(x)) for _ in range(3)]
    for t in range(1, STEPS + 1):
        local = [y - rates()[t - 1] * a.step(g[t - 1]) for y, a, g in zip(local, adams, gradients(found), strict=True)]
        for rank in (0, 1) if t % 2 else (2,):  # rounds of two steps that end after (rank + 1) 2 / 3
            g = fetched[rank] - local[rank]
            buffer, arrived = buffer + g, arrived + 1
            weight = 0.25
            if arrived % 3 == 0:
                momentum, buffer, weight = 0.9 * momentum + buffer / 3, np.zeros(len(x)), 1 - 0.25 * 3 + 0.25
            server = server - 0.7 * (weight * 0.9 * momentum + g / 3)
            local[rank], fetched[rank] = server.copy(), server.copy()
    same(found, local)


def test_async_diloco_bounds_its_staleness() -> None:
    method = find("async_diloco", {"periods": [2, 2, 8]}, "test")
    assert isinstance(method, AsyncDiloco)
    assert method.staleness(3) == 8  # of the slow site: four updates of each fast one meanwhile
    with pytest.raises(InputError, match="at least 8, which these periods reach"):
        find("async_diloco", {"periods": [2, 2, 8], "most_stale": 7}, "test").plan(DENSE, 3, 16)


def test_an_arrival_of_async_diloco_concerns_two_sites() -> None:
    plan = find("async_diloco", {"sync_every": 4}, "test").plan(DENSE, 4, 8)
    assert [{t.members for t in plan.at(step)} for step in range(1, 5)] == [set(), {(0, 1)}, {(0, 2)}, {(0, 3)}]


def test_eager_diloco_alone_is_diloco() -> None:
    options: dict[str, Any] = {"sync_every": 2, "layers_per_fragment": 9, "wire_dtype": "fp64"}
    (eager,) = train("eager_diloco", options, sites=1).sites
    streaming = {**options, "overlap": 0, "alpha": 0.0, "outer_lr": 0.4}
    (plain,) = train("streaming_diloco", streaming, sites=1).sites
    for step in range(5):  # after that, eager DiLoCo begins nothing that could not end in time
        torch.testing.assert_close(eager.trajectory[step], plain.trajectory[step], atol=1e-12, rtol=0)


def test_eager_diloco() -> None:
    """Two fragments, at the odd and at the even steps; the own part now, the others' a round later."""
    found = run("eager_diloco", {"sync_every": 2, "layers_per_fragment": 9})
    outside = np.concatenate([np.full(p.elements, p.layer is None) for p in DENSE.parameters])
    masks = [~outside, outside]
    x = start(found)
    local, adams = [x.copy() for _ in range(3)], [Adam(len(x)) for _ in range(3)]
    outer, b = [x.copy() for _ in range(3)], [np.zeros(len(x)) for _ in range(3)]
    sent: dict[int, list[np.ndarray]] = {}
    for t in range(1, STEPS + 1):
        local = [y - rates()[t - 1] * a.step(g[t - 1]) for y, a, g in zip(local, adams, gradients(found), strict=True)]
        last = t == STEPS
        for p in (0, 1) if last else {1: [0], 2: [1], 3: [0], 4: [1], 5: [0]}.get(t, []):
            delta, before = [outer[m] - local[m] for m in range(3)], sent.get(p)
            for m in range(3):
                d = np.mean(delta, axis=0) if last else delta[m] / (3 if before else 1)
                if before:
                    d = d + np.mean(before, axis=0) - before[m] / 3
                b[m] = np.where(masks[p], 0.9 * b[m] + d, b[m])
                outer[m] = np.where(masks[p], outer[m] - 0.4 * (d + 0.9 * b[m]), outer[m])
                local[m] = np.where(masks[p], outer[m], local[m])
            sent[p] = delta
    same(found, local)


@pytest.mark.parametrize("name", ["sparseloco", "muloco", "demo", "compressed_ddp"])
def test_gathered_payloads_leave_the_same_bits_at_all_workers(name: str) -> None:
    sites = train(name, {}, double=False, steps=30 if name in ("sparseloco", "muloco") else 3).sites
    assert all(torch.equal(sites[0].parameters, site.parameters) for site in sites)


def test_sparseloco_moves_a_hundredth_of_ddp_per_synchronisation() -> None:
    options = {"sync_every": 1}
    shape = DENSE.model_copy(update={"width": 256, "layers": 4})
    sparse = find("sparseloco", options, "test").plan(shape, 8, 10).payload_bytes
    dense = find("ddp", {}, "test").plan(shape, 8, 10).payload_bytes
    assert sparse < dense / 30  # although an all-gather of eight carries every payload seven times
