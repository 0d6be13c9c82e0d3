"""What must be the same, is the same to the last bits of float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.methods.lordo import LordoWorker
from algorithms.settings import InnerOptimizer
from algorithms.shape import ModelShape
from algorithms.worker import Worker
from harness.worker.model import Transformer
from tests.algorithms.training import ADAMW, DENSE, MOE, SGD, Training, tokens, train


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def agree(training: Training) -> None:
    for site in training.sites[1:]:
        assert torch.equal(site.parameters, training.sites[0].parameters)


@pytest.mark.parametrize("shape", [DENSE, MOE], ids=["dense", "moe"])
def test_ddp_is_one_worker_on_the_joined_batch(shape: ModelShape) -> None:
    def joined(step: int, rank: int) -> tuple[Tensor, Tensor]:
        batches = [tokens(shape, step, r) for r in range(3)]
        return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])

    three = train("ddp", {}, shape, sites=3)
    one = train("single", {}, shape, sites=1, data=joined)
    close(three.sites[0].parameters, one.sites[0].parameters)
    agree(three)


def test_ddp_does_not_depend_on_the_bucket_size() -> None:
    large, small = (train("ddp", {"bucket_mb": size}).sites[0].parameters for size in (25.0, 0.001))
    assert torch.equal(large, small)


@pytest.mark.parametrize("shape", [DENSE, MOE], ids=["dense", "moe"])
def test_diloco_with_sgd_and_h_1_is_ddp(shape: ModelShape) -> None:
    """Diloco with sgd and a plain mean after every step is ddp."""
    options = {"sync_every": 1, "outer_lr": 1.0, "outer_momentum": 0.0}
    diloco, ddp = train("diloco", options, shape, optimizer=SGD), train("ddp", {}, shape, optimizer=SGD)
    close(diloco.sites[0].parameters, ddp.sites[0].parameters)


@pytest.mark.parametrize("server", [0, 2])
@pytest.mark.parametrize("state", ["reset", "keep", "sync"])
def test_photon_through_a_server_is_photon_over_a_ring(server: int, state: str) -> None:
    common = {"sync_every": 2, "optimizer_state": state, "server_optimizer": "nesterov", "server_momentum": 0.9}
    ps = train("photon", {**common, "aggregation": "ps", "server": server})
    ring = train("photon", {**common, "aggregation": "ring"})
    assert torch.equal(ps.sites[1].parameters, ring.sites[1].parameters)
    assert ps.payload_bytes == ring.payload_bytes
    agree(ps)


def test_a_photon_cohort_is_equal_over_ps_and_ring() -> None:
    """Photon of a sampled cohort is the same through a server and over a ring."""
    common = {"sync_every": 2, "clients_per_round": 2, "drop_probability": 0.3, "optimizer_state": "keep"}
    runs = [
        train("photon", {**common, "aggregation": a, "server": 1}, sites=4, evaluate_at=[6]) for a in ("ps", "ring")
    ]
    assert runs[0].sites[0].evaluations == runs[1].sites[3].evaluations
    assert len({value for run in runs for site in run.sites for value in site.evaluations.values()}) == 1


def test_photon_with_momentum_and_kept_moments_is_diloco() -> None:
    """Photon with a momentum server and kept moments is diloco."""
    server = {"server_optimizer": "nesterov", "server_lr": 0.7, "server_momentum": 0.9}
    photon = train("photon", {"sync_every": 2, "optimizer_state": "keep", **server})
    diloco = train("diloco", {"sync_every": 2})
    close(photon.sites[0].parameters, diloco.sites[0].parameters)


def test_photon_that_synchronises_its_moments_is_local_adam() -> None:
    photon = train("photon", {"sync_every": 2, "optimizer_state": "sync"})
    close(photon.sites[0].parameters, train("local_adam", {"sync_every": 2}).sites[0].parameters)


def test_fedmom_and_nesterov_follow_the_same_trajectory() -> None:
    common = {"sync_every": 1, "server_lr": 0.7, "server_momentum": 0.9}
    one, other = (train("photon", {**common, "server_optimizer": name}) for name in ("fedmom", "nesterov"))
    close(one.sites[0].parameters, other.sites[0].parameters)


@pytest.mark.parametrize("routing", ["masked", "skip"])
@pytest.mark.parametrize("placement", ["fixed", "random"])
def test_fomoe_with_full_replication_is_its_parent(routing: str, placement: str) -> None:
    """Fomoe with every expert everywhere is its full replica parent."""
    common = {"replication": 2, "routing": routing, "placement": placement, "sync_every": 2}
    local = train("fomoe", {**common, "outer": "local_adamw"}, MOE, sites=2, evaluate_at=[6])
    close(local.sites[0].parameters, train("local_adam", {"sync_every": 2}, MOE, sites=2).sites[0].parameters)
    diloco = train("diloco", {"sync_every": 2}, MOE, sites=2, evaluate_at=[6])
    outer = train("fomoe", {**common, "outer": "diloco"}, MOE, sites=2, evaluate_at=[6])
    close(outer.sites[0].parameters, diloco.sites[0].parameters)
    assert outer.sites[0].evaluations[6] == pytest.approx(diloco.sites[1].evaluations[6], abs=1e-12)


def test_full_rank_lordo_is_local_adam_in_a_rotated_basis() -> None:
    """Adam's division is not invariant under rotation, so the bases must not rotate: K covers the whole run."""
    plain = {"sync_every": 6, "rank": 10**6, "omega": 1.0, "error_feedback": False, "warmup_steps": 0}
    betas = {"betas": ADAMW.betas}
    lordo = train("lordo", {**plain, **betas})
    close(lordo.sites[0].parameters, train("local_adam", {"sync_every": 6}).sites[0].parameters)


def test_lowrank_ddp_sends_the_same_update_projected_as_whole() -> None:
    """Without feedback and clipping, projecting commutes with averaging."""
    optimizer = InnerOptimizer(lr=1e-2, clip=0.0)
    common = {"refresh_every": 3, "error_feedback": False, "rank": 4}
    one, other = (
        train("lowrank_ddp", {**common, "send": send}, optimizer=optimizer).sites[0].parameters
        for send in ("full", "projected")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_desloc_with_equal_periods_is_local_adam() -> None:
    desloc = train("desloc", {"sync_every": 2, "k_u": 2, "k_v": 2})
    assert torch.equal(desloc.sites[0].parameters, train("local_adam", {"sync_every": 2}).sites[0].parameters)


def test_one_fragment_streaming_diloco_is_diloco() -> None:
    """All layers in one fragment and everything due at once: alpha 0 leaves the outer step."""
    streaming = {"sync_every": 1, "layers_per_fragment": 9, "overlap": 0, "alpha": 0.0, "outer_lr": 0.7}
    diloco = train("diloco", {"sync_every": 1})
    close(train("streaming_diloco", streaming).sites[0].parameters, diloco.sites[0].parameters)


SHARED: dict[str, dict[str, Any]] = {
    "ddp": {},
    "diloco": {"sync_every": 2},
    "photon": {"sync_every": 2},
    "lordo": {"sync_every": 2},
    "local_adam": {"sync_every": 2},
    "lowrank_ddp": {"refresh_every": 2},
    "streaming_diloco": {"sync_every": 2, "overlap": 0, "alpha": 0.0, "wire_dtype": "fp64"},
}


@pytest.mark.parametrize("name", sorted(SHARED))
def test_workers_hold_the_same_bits_after_a_synchronisation(name: str) -> None:
    agree(train(name, SHARED[name]))
    agree(train(name, {**SHARED[name], "wire_dtype": "bf16"}, double=False))


@pytest.mark.parametrize("outer", ["diloco", "local_adamw"])
@pytest.mark.parametrize("ship", ["reset", "ship"])
@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
def test_holders_of_an_expert_agree_also_after_moves(outer: str, ship: str, wire: str) -> None:
    options: dict[str, Any] = {"sync_every": 2, "replication": 2, "placement": "random", "outer": outer}
    options |= {"outer_momentum_of_moved": ship, "wire_dtype": wire}
    seen: dict[tuple[int, int, int, str], Tensor] = {}

    def watch(step: int, rank: int, worker: Worker) -> None:
        if step % 2:
            return
        model = worker.setup.model
        assert isinstance(model, Transformer)
        for layer, ffn in enumerate(model.mixtures()):
            for name in ("up", "down", "router"):
                for expert, row in zip(ffn.residents, ffn.get_parameter(name).detach(), strict=True):
                    key = (step, layer, int(expert), name)
                    assert torch.equal(seen.setdefault(key, row.clone()), row), (key, rank)

    train("fomoe", options, MOE, sites=4, double=False, watch=watch)
    assert len(seen) == 3 * 2 * 8 * 3


def test_lordo_leaves_its_first_subspace_only_below_omega_1() -> None:
    """Lordo with omega 1 never leaves its first subspace and with less it does."""

    def overlaps(**options: Any) -> list[float]:
        first: dict[int, list[Tensor]] = {}
        found: list[float] = []

        def watch(step: int, rank: int, worker: Worker) -> None:
            assert isinstance(worker, LordoWorker)
            bases = [batch.q.clone() for batch in worker.adam.batches]
            start = first.setdefault(rank, bases)
            if rank == 0 and step == 9:
                found.extend(
                    float((q.mT @ s).square().sum() / q.shape[0] / q.shape[2])
                    for q, s in zip(bases, start, strict=True)
                )

        sgd = InnerOptimizer(lr=1e-2, weight_decay=0.0)
        train("lordo", {"sync_every": 2, "rank": 2, **options}, sites=2, steps=9, optimizer=sgd, watch=watch)
        return found

    for feedback in (True, False):
        assert overlaps(omega=1.0, error_feedback=feedback) == pytest.approx([1.0, 1.0], abs=1e-9)
        assert max(overlaps(omega=0.5, error_feedback=feedback)) < 0.99


@pytest.mark.parametrize("variant", ["global", "local"])
def test_only_global_lordo_shares_its_orthonormal_bases(variant: str) -> None:
    """Lordo keeps orthonormal bases common to all only when global."""
    bases: dict[int, Tensor] = {}

    def watch(step: int, rank: int, worker: Worker) -> None:
        assert isinstance(worker, LordoWorker)
        bases[rank] = worker.adam.batches[0].q.clone()

    train("lordo", {"sync_every": 2, "variant": variant, "rank": 4}, watch=watch)
    identity = torch.eye(4, dtype=torch.float64).expand(bases[0].shape[0], -1, -1)
    close(bases[0].mT @ bases[0], identity)
    assert torch.equal(bases[0], bases[1]) == (variant == "global")


def test_lordo_is_the_same_whether_bases_are_computed_or_sent() -> None:
    one, other = (train("lordo", {"sync_every": 2, "broadcast_basis": b}).sites[2].parameters for b in (False, True))
    assert torch.equal(one, other)


def test_a_server_keeps_full_precision_while_the_wire_does_not() -> None:
    """Rounding errors of the model's broadcasts do not add up at the server."""
    coarse = train("photon", {"sync_every": 2, "wire_dtype": "bf16"}, double=False, steps=12)
    server = coarse.sites[0].worker.state()["server"]
    assert not torch.equal(server, server.bfloat16().float())
    assert torch.equal(coarse.sites[1].parameters, server.bfloat16().float())
