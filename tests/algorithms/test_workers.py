"""What the trainer relies on: checkpoints, evaluation, metrics, schedules, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms.method import find
from algorithms.methods.fomoe import FomoeWorker
from algorithms.methods.photon import Photon
from algorithms.settings import LearningRateSchedule
from algorithms.shape import ModelShape
from algorithms.worker import Worker
from netsim.errors import InputError
from tests.algorithms.test_bytes import CASES, EXPERTS
from tests.algorithms.training import DENSE, MOE, train


@pytest.mark.parametrize(("name", "options"), CASES + EXPERTS)
def test_neither_evaluation_nor_resuming_changes_a_worker(name: str, options: dict[str, Any]) -> None:
    """Evaluation is the same everywhere at any step and leaves training alone; a worker goes on from a checkpoint as if
    nothing had happened. So one run that evaluates at every step and one that resumes are the same."""
    watched = train(name, options, MOE, sites=4, steps=7, evaluate_at=range(1, 8))
    resumed = train(name, options, MOE, sites=4, steps=7, evaluate_at=[7], resume_at=4)
    for one, other in zip(watched.sites, resumed.sites, strict=True):
        if name != "single":  # whose workers evaluate alone
            assert one.evaluations == watched.sites[0].evaluations
        assert torch.equal(one.parameters, other.parameters)
        assert one.losses == other.losses
        assert one.evaluations[7] == other.evaluations[7]
        mine, theirs = one.worker.state(), other.worker.state()
        assert sorted(mine) == sorted(theirs)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_assembled_model_is_made_of_the_holders_experts() -> None:
    """At O_e = 1 each expert comes from its one holder; evaluated on it, the full model has all of them."""
    held: dict[tuple[int, int], torch.Tensor] = {}
    found: list[dict[tuple[int, int], torch.Tensor]] = [{} for _ in range(4)]

    def watch(step: int, rank: int, worker: Worker) -> None:
        if step != 4:
            return
        assert isinstance(worker, FomoeWorker)
        for layer, ids in enumerate(worker.residents):
            for row, expert in enumerate(ids):
                held[layer, expert] = worker.setup.model.get_parameter(f"layers.{layer}.ffn.up")[row].detach().clone()
        with worker.evaluation() as model:
            for layer in range(MOE.layers):
                for expert, value in enumerate(model.get_parameter(f"layers.{layer}.ffn.up").detach()):
                    found[rank][layer, expert] = value.clone()

    train("fomoe", {"sync_every": 2, "replication": 1, "outer": "local_adamw"}, MOE, sites=4, steps=4, watch=watch)
    for seen in found:
        assert seen.keys() == held.keys()
        assert all(torch.equal(seen[key], held[key]) for key in held)


def test_the_site_view_evaluates_each_site_on_what_it_holds() -> None:
    options = {"sync_every": 2, "replication": 1, "evaluate": "site"}
    sites = train("fomoe", options, MOE, sites=4, evaluate_at=[6]).sites
    assert len({site.evaluations[6] for site in sites}) == 4


@pytest.mark.parametrize(
    ("routing", "replication", "ghosts"), [("masked", 2, False), ("skip", 2, True), ("skip", 4, False)]
)
def test_fomoe_reports_routing_by_layer(routing: str, replication: int, ghosts: bool) -> None:
    seen: list[dict[str, float]] = []

    def watch(step: int, rank: int, worker: Worker) -> None:
        metrics = worker.metrics()
        assert bool(metrics) == (step % 2 == 0)
        if rank == 0 and metrics:
            seen.append(metrics)

    options = {"sync_every": 2, "replication": replication, "routing": routing}
    train("fomoe", options, MOE, sites=4, steps=4, watch=watch)
    assert len(seen) == 2
    for metrics in seen:
        for layer in range(MOE.layers):
            assert 0 < metrics[f"routing_entropy/{layer}"] <= 1
            assert (metrics[f"ghost_share/{layer}"] > 0) == ghosts
            load = [metrics[f"load/{layer}/{expert}"] for expert in range(MOE.experts)]
            assert sum(load) + metrics[f"ghost_share/{layer}"] == pytest.approx(1)
            assert sum(share > 0 for share in load) <= replication * MOE.experts // 4


def test_a_moved_expert_restarts_moments_and_ramps_its_lr() -> None:
    """The step after the move changes the incoming rows by 1/(ramp + 1) of what it changes without a ramp."""

    def after(ramp: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        rows: list[int] = []

        def watch(step: int, rank: int, worker: Worker) -> None:
            assert isinstance(worker, FomoeWorker)
            if step == 2 and rank == 0:
                rows.extend(worker.residents[0].index(e) for e in worker.came[0])
                moments = worker.optimizer.state[dict(worker.setup.model.named_parameters())["layers.0.ffn.up"]]
                assert float(moments["exp_avg"][rows].abs().sum()) == 0
                kept = [row for row in range(len(worker.residents[0])) if row not in rows]
                assert not kept or float(moments["exp_avg"][kept].abs().sum()) > 0

        options = {"sync_every": 2, "replication": 2, "placement": "random", "ramp_steps": ramp}
        site = train("fomoe", options, MOE, sites=4, steps=3, watch=watch).sites[0]
        view = find("fomoe", options, "test").view(MOE, 4, 0, 1)
        assert view.residents is not None
        place, start = slice(0, 0), 0
        for parameter in site.model.named_parameters():
            if parameter[0] == "layers.0.ffn.up":
                place = slice(start, start + parameter[1].numel())
            start += parameter[1].numel()
        shape = site.model.get_parameter("layers.0.ffn.up").shape
        return site.trajectory[2][place].view(shape), site.trajectory[3][place].view(shape), rows

    before, ramped, rows = after(3)
    again, straight, _ = after(0)
    assert rows
    assert torch.equal(before, again)
    # The last step synchronises; both holders of an expert may have just received it, or only one of them.
    assert (ramped - before)[rows].abs().sum() < (straight - before)[rows].abs().sum()


def test_photon_replays_its_cohorts_from_the_seed() -> None:
    method = find("photon", {"clients_per_round": 3, "sync_every": 10}, "test")
    assert isinstance(method, Photon)
    first, again, other = (list(method.rounds(8, 100, seed)) for seed in (1, 1, 2))
    assert first == again != other
    longer = list(method.rounds(8, 200, 1))
    assert longer[:10] == first  # a longer run meets the same cohorts first
    counts = [sum(k in r.cohort for r in method.rounds(8, 10 * 2000, 3)) for k in range(8)]
    assert min(counts) > 650
    assert max(counts) < 850


def test_photon_stretches_the_schedule_by_the_batch_ratio() -> None:
    """Photon stretches the schedule by the ratio of batches and keeps the peak."""
    method = find("photon", {"central_batch": 256, "local_batch": 32}, "test")
    assert method.schedule(LearningRateSchedule(6e-4, 100, 5120)) == LearningRateSchedule(6e-4, 800, 40_960)


REFUSED: list[tuple[str, dict[str, Any], ModelShape, str, str]] = [
    ("photon", {"clients_per_round": 5}, DENSE, "clients_per_round", "at most the 4 sites"),
    ("photon", {"server": 4}, DENSE, "server", "a rank below the 4 sites"),
    ("photon", {"client_weights": [1, 2]}, DENSE, "client_weights", "one for each of the 4 sites"),
    ("fomoe", {}, DENSE, "model", "a model with experts, kind: moe"),
    ("fomoe", {"replication": 5}, MOE, "replication", "from 1 to the 4 sites"),
    ("lordo", {"low_rank": "nothing"}, DENSE, "low_rank", "a pattern that matches"),
]


@pytest.mark.parametrize(("name", "options", "shape", "field", "allowed"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    name: str, options: dict[str, Any], shape: ModelShape, field: str, allowed: str
) -> None:
    with pytest.raises(InputError) as caught:
        find(name, options, "suite.yaml").plan(shape, 4, 10)
    assert caught.value.field.endswith(field)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"server_lr": 0.5}, "fedavg has neither"),
        ({"central_batch": 8}, "central_batch and local_batch together"),
        ({"clients": 3}, "only "),
        ({"update_compression": "zip"}, "'none', 'bf16', 'int8' or 'fp4'"),
    ],
)
def test_senseless_options_are_refused_before_anything_runs(options: dict[str, Any], allowed: str) -> None:
    """Options that make no sense are refused before anything runs."""
    with pytest.raises(InputError, match="suite.yaml: options") as caught:
        find("photon", options, "suite.yaml")
    assert allowed in caught.value.allowed


def test_a_pattern_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(InputError, match="a regular expression"):
        find("lordo", {"low_rank": "("}, "suite.yaml")


def test_a_replication_that_does_not_divide_names_those_that_do() -> None:
    shape = MOE.model_copy(update={"experts": 6})
    with pytest.raises(InputError, match=r"one of \[2, 4\]"):
        find("fomoe", {"replication": 3}, "test").plan(shape, 4, 10)
