"""Unlike sites: a clock, a batch and a share of the local steps of their own, in spec, prediction and training."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from algorithms.method import find, names
from harness.conformance import trial
from harness.costmodel.predict import predict
from harness.records.run_record import Step, read_lines
from harness.spec.compute import SiteCompute
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from harness.worker.job import Summary
from netsim.errors import InputError
from netsim.traffic import Cohort
from tests.test_trainer import LAN, train

SLOW = {"b": {"step_seconds": 0.1, "batch": 6, "local_steps": "50 %"}}


def unlike(folder: Path, method: str, sites: dict[str, Any], seconds: float = 0.05, **options: Any) -> RunSpec:
    suite = {
        "name": "unlike",
        "model": "tiny",
        "train": {"steps": 8, "batch": 2, "warmup": 2, "evaluate_every": 8, "evaluation_sequences": 4},
        "compute": {"mode": "paced", "step_seconds": seconds, "sites": sites},
        "methods": [{"method": method, "options": options}],
        "topologies": [LAN],
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    return load_suite(folder / "suite.yaml").cells[0]


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.3, 0.01])
def test_local_steps_are_spread_evenly_from_the_first_on(share: float) -> None:
    site = SiteCompute(local_steps=share)
    trained = [step for step in range(1, 101) if site.trains(step)]
    assert len(trained) == round(100 * share)
    assert trained[0] == 1
    gaps = [later - earlier for earlier, later in pairwise(trained)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_unlike_batches_weigh_as_one_joined_batch(tmp_path: Path) -> None:
    """The mean over sites of weight times mean gradient is the joined batch's: each sequence counts alike."""
    spec = unlike(tmp_path, "ddp", {"b": {"batch": 6}})
    per_sequence = [spec.joined_weight(rank) / 2 / spec.batch(rank) for rank in (0, 1)]
    assert per_sequence == pytest.approx([1 / 8, 1 / 8])
    assert unlike(tmp_path, "ddp", {"b": {"batch": 2}}).joined_weight(1) == 1


def test_a_run_waits_for_its_slowest_site(tmp_path: Path) -> None:
    """Which may train in fewer steps instead, and then nobody waits."""

    def seconds(**slow: Any) -> float:
        found = predict(unlike(tmp_path, "diloco", {"b": slow} if slow else {}, 1.0, sync_every=4)).wall_seconds
        assert found is not None
        return found

    alike = seconds()
    assert seconds(step_seconds=1.0) == alike
    # But for what its kernel still sends while a site computes.
    assert seconds(step_seconds=2.0) == pytest.approx(alike + 8, abs=0.002)
    assert seconds(step_seconds=2.0, local_steps="50 %") == pytest.approx(alike, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "sites", "words"),
    [
        ("diloco", {"c": {"batch": 2}}, "'c'; allowed: sites of the topology: a, b"),
        ("ddp", {"b": {"local_steps": 0.5}}, "1 for ddp, which averages what every step computes"),
        ("diloco", {"b": {"local_steps": 0}}, "greater than 0"),
        ("diloco", {"b": {"batches": 2}}, "did you mean 'batch'"),
    ],
)
def test_settings_that_a_site_cannot_have_are_refused(
    tmp_path: Path, method: str, sites: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as error:
        unlike(tmp_path, method, sites)
    assert words in str(error.value)


SKIPPING = [name for name in names() if name != "single" and find(name, {}, "test").may_skip_steps]


@pytest.mark.parametrize("name", SKIPPING)
def test_a_method_that_may_skip_steps_can(name: str) -> None:
    """The second site trains in every second step; all evaluate one model, and end with finite numbers."""
    method = find(name, {"sync_every": 4}, "test")
    shape = trial.MOE if name == "fomoe" else trial.DENSE
    plan = method.plan(shape, 2, 8, trial.SEED)
    site = SiteCompute(local_steps=0.5)
    steps = range(1, 9)
    cohorts = tuple(Cohort(step, step, (0, 1) if site.trains(step) else (0,)) for step in steps)
    with trial.in_memory(2) as exchanges:
        workers = trial.train(method, shape, exchanges, replace(plan, cohorts=cohorts))
    assert workers[0].evaluation == workers[1].evaluation
    assert all(bool(worker.parameters.isfinite().all()) for worker in workers)


def trained(spec: RunSpec, folder: Path) -> list[Summary]:
    return train(spec, folder, folder.parent / "cache")


@pytest.mark.slow
def test_sites_set_to_what_all_have_train_to_the_same_bits(tmp_path: Path) -> None:
    same = {"b": {"step_seconds": 0.05, "batch": 2, "local_steps": 1}}
    for method in ("ddp", "diloco"):
        plain = trained(unlike(tmp_path, method, {}), tmp_path / f"{method}-plain")
        found = trained(unlike(tmp_path, method, same), tmp_path / f"{method}-same")
        assert found[0].final_loss == plain[0].final_loss


@pytest.mark.slow
@pytest.mark.parametrize("method", ["diloco", "streaming_diloco", "noloco", "async_diloco"])
def test_a_slow_site_trains_less_and_holds_nobody_up(tmp_path: Path, method: str) -> None:
    spec = unlike(tmp_path, method, SLOW, sync_every=4)
    quick, slow = trained(spec, tmp_path / method)
    sequence = spec.model.sequence
    assert (quick.tokens, slow.tokens) == (8 * 2 * sequence, 4 * 6 * sequence)
    assert quick.final_loss == slow.final_loss
    losses = [step.loss for step in read_lines(tmp_path / method / "rank-1" / "steps.jsonl", Step)]
    assert [loss is not None for loss in losses] == [True, False] * 4
    assert slow.seconds["pacing"] < 4 * 0.1


@pytest.mark.slow
def test_data_parallel_sites_may_have_unlike_batches(tmp_path: Path) -> None:
    spec = unlike(tmp_path, "ddp", {"b": {"batch": 6}})
    small, large = trained(spec, tmp_path / "ddp")
    assert large.tokens == 3 * small.tokens
    assert small.final_loss == large.final_loss
