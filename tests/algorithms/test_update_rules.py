"""Every method against its formula in a few lines of numpy, fed with the gradients that the workers met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithms.methods.diloco import Diloco
from algorithms.methods.lordo import omega_for
from algorithms.methods.photon import Photon
from algorithms.settings import InnerOptimizer, LearningRateSchedule
from algorithms.shape import ModelShape
from tests.algorithms.training import DENSE, MOE, Training, train

Vector = NDArray[np.float64]
B1, B2, EPS, STEPS = 0.9, 0.95, 1e-8, 7
PLAIN = InnerOptimizer(lr=1e-2, weight_decay=0.0, clip=0.0)


class Adam:
    def __init__(self, size: int, betas: tuple[float, float] = (B1, B2)) -> None:
        self.u, self.v, self.t, self.betas = np.zeros(size), np.zeros(size), 0, betas

    def step(self, g: Vector) -> Vector:
        self.t += 1
        b1, b2 = self.betas
        self.u = b1 * self.u + (1 - b1) * g
        self.v = b2 * self.v + (1 - b2) * g * g
        return (self.u / (1 - b1**self.t)) / (np.sqrt(self.v / (1 - b2**self.t)) + EPS)


def run(name: str, options: dict[str, Any], shape: ModelShape = DENSE, sites: int = 3, **more: Any) -> Training:
    return train(name, options, shape, sites, STEPS, optimizer=PLAIN, **more)


def rates() -> list[float]:
    return [LearningRateSchedule(PLAIN.lr, 2, STEPS).lr(step) for step in range(1, STEPS + 1)]


def gradients(training: Training) -> list[list[Vector]]:
    """[rank][step]"""
    return [[g.numpy() for g in site.gradients] for site in training.sites]


def start(training: Training) -> Vector:
    return training.sites[0].trajectory[0].numpy()


def same(training: Training, expected: list[Vector]) -> None:
    for site, vector in zip(training.sites, expected, strict=True):
        np.testing.assert_allclose(site.parameters.numpy(), vector, rtol=0, atol=1e-12)


def test_single_is_adamw_with_decoupled_weight_decay_on_matrices() -> None:
    settings = InnerOptimizer(lr=1e-2, weight_decay=0.3, clip=0.0)
    found = train("single", {}, DENSE, 1, STEPS, optimizer=settings)
    matrices = np.concatenate([np.full(p.elements, len(p.shape) > 1) for p in DENSE.parameters])
    x, adam = start(found), Adam(len(start(found)))
    for g, lr in zip(gradients(found)[0], rates(), strict=True):
        x = x * np.where(matrices, 1 - lr * 0.3, 1) - lr * adam.step(g)
    same(found, [x])


def test_diloco() -> None:
    found = run("diloco", {"sync_every": 3, "outer_lr": 0.7, "outer_momentum": 0.9})
    outer = start(found)
    local, adams, b = [outer] * 3, [Adam(len(outer)) for _ in range(3)], np.zeros(len(outer))
    for t in range(STEPS):
        local = [x - rates()[t] * a.step(g[t]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        if (t + 1) % 3 == 0 or t + 1 == STEPS:
            delta = outer - np.mean(local, axis=0)
            b = 0.9 * b + delta
            outer = outer - 0.7 * (delta + 0.9 * b)
            local = [outer] * 3
    same(found, local)


@pytest.mark.parametrize("state", ["reset", "keep", "sync"])
def test_photon_weighs_clients_by_samples(state: str) -> None:
    """Photon weighs clients by samples and treats their moments as told."""
    weights = [1.0, 2.0, 5.0]
    options = {"sync_every": 3, "client_weights": weights, "optimizer_state": state}
    found = run("photon", {**options, "server_optimizer": "nesterov", "server_lr": 0.5, "server_momentum": 0.8})
    x = start(found)
    local, adams, m = [x] * 3, [Adam(len(x)) for _ in range(3)], np.zeros(len(x))
    for t in range(STEPS):
        local = [y - rates()[t] * a.step(g[t]) for y, a, g in zip(local, adams, gradients(found), strict=True)]
        if (t + 1) % 3 == 0 or t + 1 == STEPS:
            gradient = x - np.average(local, axis=0, weights=weights)
            m = 0.8 * m + gradient
            x = x - 0.5 * (gradient + 0.8 * m)
            local = [x] * 3
            if state == "reset":
                adams = [Adam(len(x)) for _ in range(3)]
            elif state == "sync":
                u, v = (np.average([getattr(a, k) for a in adams], axis=0, weights=weights) for k in "uv")
                for adam in adams:
                    adam.u, adam.v = u, v
    same(found, local)


def test_photon_renormalises_over_the_surviving_cohort() -> None:
    """Photon lets only the cohort train and renormalises for the lost."""
    options = {"sync_every": 2, "clients_per_round": 3, "drop_probability": 0.4, "server": 3}
    found = run("photon", options, sites=5, seed=4)
    taken = [iter(rank) for rank in gradients(found)]
    x = start(found)
    assert isinstance(found.method, Photon)
    rounds = list(found.method.rounds(5, STEPS, 4))
    assert any(set(r.arrived) != set(r.cohort) for r in rounds)
    for r in rounds:
        local = {}
        for k in r.cohort:
            y, adam = x, Adam(len(x))
            for t in range(r.first - 1, r.last):
                y = y - rates()[t] * adam.step(next(taken[k]))
            local[k] = y
        if r.arrived:
            x = np.mean([local[k] for k in r.arrived], axis=0)
    np.testing.assert_allclose(found.sites[3].worker.state()["server"].numpy(), x, rtol=0, atol=1e-12)
    assert not any(list(rest) for rest in taken)


@pytest.mark.parametrize(
    ("name", "options", "periods"),
    [
        ("local_adam", {"sync_every": 3}, (3, 3, 3)),
        ("desloc", {"sync_every": 2, "k_u": 3, "k_v": 5}, (2, 3, 5)),
    ],
)
def test_local_adam_and_desloc(name: str, options: dict[str, Any], periods: tuple[int, int, int]) -> None:
    found = run(name, options)
    local, adams = [start(found)] * 3, [Adam(len(start(found))) for _ in range(3)]
    for t in range(STEPS):
        local = [x - rates()[t] * a.step(g[t]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        if (t + 1) % periods[0] == 0 or t + 1 == STEPS:
            local = [np.mean(local, axis=0)] * 3
        for which, period in zip("uv", periods[1:], strict=True):
            if (t + 1) % period == 0:
                mean = np.mean([getattr(a, which) for a in adams], axis=0)
                for adam in adams:
                    setattr(adam, which, mean)
    same(found, local)


def test_streaming_diloco() -> None:
    options = {"sync_every": 4, "layers_per_fragment": 1, "overlap": 1, "alpha": 0.3}
    found = run("streaming_diloco", options)
    fragment = np.concatenate([np.full(p.elements, 2 if p.layer is None else p.layer) for p in DENSE.parameters])
    local, adams = [start(found)] * 3, [Adam(len(start(found))) for _ in range(3)]
    outer, b = start(found).copy(), np.zeros(len(fragment))
    waiting: dict[int, tuple[int, Vector]] = {}
    due = {1: [0], 2: [1], 4: [2], 5: [0], 6: [1]}  # t_p spread over H = 4; in the last step everything
    for t in range(1, STEPS + 1):
        local = [x - rates()[t - 1] * a.step(g[t - 1]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        arrived = [waiting.pop(t)] if t in waiting else []
        for p in due.get(t, []):
            waiting[t + 1] = (p, outer - np.mean(local, axis=0))
        for p, delta in arrived:
            local = absorb(fragment == p, delta, outer, b, local)
        if t == STEPS:
            for p in range(3):
                local = absorb(fragment == p, outer - np.mean(local, axis=0), outer, b, local)
    assert not waiting
    same(found, local)


def absorb(mask: NDArray[np.bool_], delta: Vector, outer: Vector, b: Vector, local: list[Vector]) -> list[Vector]:
    b[mask] = 0.9 * b[mask] + delta[mask]
    outer[mask] -= 0.4 * (delta + 0.9 * b)[mask]
    return [np.where(mask, 0.3 * x + 0.7 * outer, x) for x in local]


class Matrix:
    """One low-rank matrix of LoRDO's kind: Q, u, v, E, and where it lies in the flat parameters."""

    def __init__(self, start: int, shape: tuple[int, int], rank: int) -> None:
        self.place, self.shape = slice(start, start + shape[0] * shape[1]), shape
        p, q = sorted(shape)
        self.q, self.e = np.eye(p)[:, :rank], np.zeros((p, q))
        self.u, self.v = np.zeros((rank, q)), np.zeros((rank, q))

    def of(self, flat: Vector) -> Vector:
        w = flat[self.place].reshape(self.shape)
        return w.T if self.shape[0] > self.shape[1] else w

    def back(self, w: Vector) -> Vector:
        return (w.T if self.shape[0] > self.shape[1] else w).reshape(-1)

    def rebase(self, source: Vector, t: int, betas: tuple[float, float]) -> None:
        new = np.linalg.svd(source)[0][:, : self.q.shape[1]]
        if t:
            turn = new.T @ self.q
            c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
            uh, vh = self.u / c1, self.v / c2
            self.v = c2 * np.abs(turn**2 @ np.maximum(vh - uh**2, 0) + (turn @ uh) ** 2)
            self.u = turn @ self.u
        self.q = new

    def step(self, g: Vector, t: int, betas: tuple[float, float]) -> tuple[Vector, Vector, Vector]:
        """Projected gradient, bias-corrected u, and sqrt of v plus eps."""
        a = g + self.e
        low = self.q.T @ a
        self.e = a - self.q @ low
        self.u = betas[0] * self.u + (1 - betas[0]) * low
        self.v = betas[1] * self.v + (1 - betas[1]) * low * low
        return low, self.u / (1 - betas[0] ** t), np.sqrt(self.v / (1 - betas[1] ** t)) + EPS


def matrices(rank: int) -> list[Matrix]:
    found, start = [], 0
    for parameter in DENSE.parameters:
        if parameter.layer is not None and len(parameter.shape) == 2:
            found.append(Matrix(start, (parameter.shape[0], parameter.shape[1]), rank))
        start += parameter.elements
    return found


@pytest.mark.parametrize(("omega", "term"), [(1.0, "inside"), (0.8, "inside"), (0.8, "gradient"), (0.8, "feedback")])
def test_lowrank_ddp(omega: float, term: str) -> None:
    found = run("lowrank_ddp", {"refresh_every": 3, "rank": 4, "omega": omega, "term": term})
    x, low, adam = start(found), matrices(4), Adam(len(start(found)))
    for t in range(1, STEPS + 1):
        g = np.mean([rank[t - 1] for rank in gradients(found)], axis=0)
        adam.step(g)
        update = ((1 - omega) * g + omega * adam.u / (1 - B1**t)) / (np.sqrt(adam.v / (1 - B2**t)) + EPS)
        for m in low:
            if (t - 1) % 3 == 0:
                m.rebase(m.of(g) + m.e, t - 1, (B1, B2))
            outside = m.of(g) + (m.e if term == "feedback" else 0)
            small, uh, d = m.step(m.of(g), t, (B1, B2))
            inside = m.q @ (((1 - omega) * small + omega * uh) / d)
            mixed = (1 - omega) * outside / d.mean() + omega * m.q @ (uh / d)
            update[m.place] = m.back(inside if term == "inside" else mixed)
        x = x - rates()[t - 1] * update
    same(found, [x] * 3)


@pytest.mark.parametrize("term", ["gradient", "feedback"])
def test_lordo(term: str) -> None:
    betas, omega, scale, period = (0.9, 0.99), 0.9, 0.5, 3
    options = {"sync_every": 3, "rank": 4, "omega": omega, "betas": betas, "switch_scale": scale, "k_u": 2, "k_v": 3}
    found = run("lordo", {**options, "full_rank_term": term})
    x = start(found)
    sides = [(matrices(4), Adam(len(x), betas)) for _ in range(3)]
    local, reference = [x] * 3, x
    for t in range(1, STEPS + 1):
        lr = rates()[t - 1] * (scale if t > 1 else 1)
        used = betas if t > 1 else (B1, B2)
        mean = np.mean([rank[0] for rank in gradients(found)], axis=0)
        for rank, (low, adam) in enumerate(sides):
            g = gradients(found)[rank][t - 1] if t > 1 else mean
            adam.betas = used
            adam.step(g)
            w = omega if t > 1 else 1.0
            d = np.sqrt(adam.v / (1 - used[1] ** t)) + EPS
            update = ((1 - w) * g + w * adam.u / (1 - used[0] ** t)) / d
            for m in low:
                if t == 1:
                    m.rebase(m.of(g), 0, used)
                outside = m.of(g) + (m.e if term == "feedback" else 0)
                _, uh, dm = m.step(m.of(g), t, used)
                update[m.place] = m.back((1 - w) * outside / dm.mean() + w * m.q @ (uh / dm))
            local[rank] = local[rank] - lr * update
            if t == 1:
                for m in low:
                    m.u, m.v = 0 * m.u, 0 * m.v
                adam.u, adam.v = 0 * adam.u, 0 * adam.v
        if t == 1:
            reference = local[0]
        for which, every in (("u", 2), ("v", 3)):
            if t > 1 and (t - 1) % every == 0:
                for parts in zip(*[(*low, adam) for low, adam in sides], strict=True):
                    average = np.mean([getattr(part, which) for part in parts], axis=0)
                    for part in parts:
                        setattr(part, which, average)
        if (t > 1 and (t - 1) % period == 0) or t == STEPS:
            delta = np.mean(local, axis=0) - reference
            reference = reference + delta
            local = [reference] * 3
            for low, _ in sides:
                for m in low:
                    m.rebase(m.of(delta), t, betas)
    same(found, local)


def test_omega_follows_from_the_betas() -> None:
    assert omega_for((0.999, 0.999)) == pytest.approx(0.97)
    assert omega_for((0.9, 0.95)) == pytest.approx(0.5)
    assert 0.5 < omega_for((0.99, 0.99)) < 0.97


def test_local_lordo_averages_only_full_rank_moments() -> None:
    """Local lordo averages the moments of full rank parameters alone."""
    found = run("lordo", {"sync_every": 3, "variant": "local", "rank": 4, "k_u": 1, "k_v": 1})
    adams = [site.worker.adam for site in found.sites]  # type: ignore[attr-defined]  # LoRDO's worker
    for which in ("u", "v"):
        first, *others = [adam.moment(which) for adam in adams]
        assert all(torch.equal(first[-1], moment[-1]) for moment in others)
        assert not any(torch.equal(first[0], moment[0]) for moment in others)


def test_diloco_pretrains_as_data_parallel_training() -> None:
    found = run("diloco", {"sync_every": 3, "pretrain_steps": 2})
    x, adam = start(found), Adam(len(start(found)))
    for t in range(2):
        x = x - rates()[t] * adam.step(np.mean([rank[t] for rank in gradients(found)], axis=0))
    for site in found.sites:
        np.testing.assert_allclose(site.trajectory[2].numpy(), x, rtol=0, atol=1e-12)
    assert len({site.trajectory[3].numpy().tobytes() for site in found.sites}) == 3


def test_diloco_weighs_workers_and_drops_updates() -> None:
    """A worker whose update is lost learns the outer step but trains on from its own parameters."""
    weights, seed = (1.0, 2.0, 5.0), 1
    options = {"sync_every": 2, "worker_weights": weights, "drop_probability": 0.4}
    found = run("diloco", options)
    method = found.method
    assert isinstance(method, Diloco)
    outer = start(found)
    local, adams, b = [outer] * 3, [Adam(len(outer)) for _ in range(3)], np.zeros(len(outer))
    lost = 0
    for t in range(1, STEPS + 1):
        local = [x - rates()[t - 1] * a.step(g[t - 1]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        if t % 2 == 0 or t == STEPS:
            arrived = method.arrived(t, 3, seed)
            lost += 3 - len(arrived)
            if not arrived:
                continue
            total = sum(weights[m] for m in arrived)
            delta = outer - sum(weights[m] / total * local[m] for m in arrived)
            b = 0.9 * b + delta
            outer = outer - 0.7 * (delta + 0.9 * b)
            local = [outer if m in arrived else x for m, x in enumerate(local)]
    assert 0 < lost < 12
    same(found, local)


@pytest.mark.parametrize("outer", ["diloco", "local_adamw"])
@pytest.mark.parametrize("routing", ["masked", "skip"])
def test_fomoe_averages_every_number_over_those_that_hold_it(outer: str, routing: str) -> None:
    options = {"sync_every": 3, "replication": 2, "outer": outer, "routing": routing}
    found = run("fomoe", options, MOE, sites=4)
    held = [places(found, rank) for rank in range(4)]
    holders = np.bincount(np.concatenate(held), minlength=MOE.count())
    local = [site.trajectory[0].numpy() for site in found.sites]
    adams = [Adam(len(x)) for x in local]
    outers, b = [x.copy() for x in local], [np.zeros(len(x)) for x in local]

    def mean(values: list[Vector]) -> list[Vector]:
        total = np.zeros(MOE.count())
        for place, value in zip(held, values, strict=True):
            np.add.at(total, place, value)
        return [(total / np.maximum(holders, 1))[place] for place in held]

    for t in range(STEPS):
        local = [x - rates()[t] * a.step(g[t]) for x, a, g in zip(local, adams, gradients(found), strict=True)]
        if (t + 1) % 3 and t + 1 != STEPS:
            continue
        if outer == "local_adamw":
            local = mean(local)
            for which in "uv":
                for adam, value in zip(adams, mean([getattr(a, which) for a in adams]), strict=True):
                    setattr(adam, which, value)
        else:
            deltas = mean([x - y for x, y in zip(outers, local, strict=True)])
            b = [0.9 * m + delta for m, delta in zip(b, deltas, strict=True)]
            outers = [x - 0.7 * (delta + 0.9 * m) for x, delta, m in zip(outers, deltas, b, strict=True)]
            local = outers
    same(found, local)


def places(training: Training, rank: int) -> NDArray[np.int64]:
    """Where each of this worker's numbers lies in the whole model."""
    view = training.method.view(MOE, 4, rank, 1)
    assert view.residents is not None
    found, start = [], 0
    for parameter in MOE.parameters:
        whole = np.arange(start, start + parameter.elements).reshape(parameter.shape)
        stacked = ".ffn." in parameter.name and (view.routing == "masked" or "router" not in parameter.name)
        if stacked and parameter.layer is not None:
            whole = whole[list(view.residents[parameter.layer])]
        found.append(whole.reshape(-1))
        start += parameter.elements
    return np.concatenate(found)
