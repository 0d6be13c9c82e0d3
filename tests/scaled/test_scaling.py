"""A run that stands for something keeps its proportion of communication to computation."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from harness.costmodel.predict import predict
from harness.costmodel.scaled_target import project_target
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.spec.scenario import load_scenario
from harness.spec.suite import load_suite
from netsim.errors import InputError
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.traffic import Plan
from tests.scaled.suites import LABELS, SHARE, TOPOLOGY, cell, write_suite

ROOT = Path(__file__).parents[2]


def moved(plan: Plan, step: int) -> dict[object, int]:
    """Bytes after a step, by who exchanges them and how."""
    found: dict[object, int] = {}
    for t in plan.at(step):
        kind = (t.members, t.collective, t.algorithm, t.root, t.overlap, t.phase)
        found[kind] = found.get(kind, 0) + t.size
    return found


@pytest.mark.parametrize("label", LABELS)
def test_each_step_moves_its_share_of_the_targets_bytes(tmp_path: Path, label: str) -> None:
    """After every step the run moves its share of what the target moves."""
    spec = cell(tmp_path, label)
    plan, target = ResolvedRun.of(spec).plan, ResolvedRun.of(spec).target_plan
    assert list(plan.sync_steps()) == list(target.sync_steps()) != []
    for step in plan.sync_steps():
        ours, theirs = moved(plan, step), moved(target, step)
        assert ours == {kind: pytest.approx(SHARE * size, abs=2) for kind, size in theirs.items()}
    assert plan.payload_bytes == pytest.approx(SHARE * target.payload_bytes, rel=1e-4)


@pytest.mark.parametrize("label", LABELS)
def test_the_methods_own_transfers_are_in_the_plan_as_they_are(tmp_path: Path, label: str) -> None:
    spec = cell(tmp_path, label)
    plan, own = ResolvedRun.of(spec).plan, ResolvedRun.of(spec).own_plan
    for step in own.sync_steps():
        assert [t for t in plan.at(step) if not t.name.startswith("filler/")] == list(own.at(step))


def test_rates_and_delays_go_with_bytes_and_seconds(tmp_path: Path) -> None:
    spec = cell(tmp_path, "diloco")
    assert spec.stands_for is not None
    k = spec.stands_for.step_seconds / 0.1
    assert spec.time_scale == k
    emulated = ResolvedRun.of(spec).topology
    assert emulated.rate("a", "b") == pytest.approx(1e9 * SHARE * k)
    assert emulated.rtt("a", "b") == pytest.approx(0.040 / k)
    size, whole = ResolvedRun.of(spec).plan.payload_bytes, ResolvedRun.of(spec).target_plan.payload_bytes
    assert size / emulated.rate("a", "b") / 0.1 == pytest.approx(whole / 1e9 / spec.stands_for.step_seconds, rel=1e-4)


def test_the_targets_step_is_flops_over_achieved_rate(tmp_path: Path) -> None:
    """The step of the target is its flops over what its site achieves."""
    spec = cell(tmp_path, "diloco")
    assert spec.stands_for is not None
    sequences = 64 / 4
    flops = spec.stands_for.model.flops_per_token() * sequences * 2048
    assert spec.stands_for.step_seconds == pytest.approx(flops / (165.2e12 * 0.548))
    assert spec.stands_for.tokens_per_step == 64 * 2048


@pytest.mark.parametrize("label", LABELS)
def test_without_a_hosts_own_costs_target_time_is_the_projection(tmp_path: Path, label: str) -> None:
    """Both by the simulator's first principles; DDP's buckets are fewer in the run, which tells a little."""
    spec = cell(tmp_path, label)
    outcome = simulate(ResolvedRun.of(spec).plan, ResolvedRun.of(spec).topology, Compute((0.1,) * 4))
    assert outcome.wall_seconds * spec.time_scale == pytest.approx(project_target(spec).seconds, rel=0.03)


def test_fillers_are_released_along_the_backward_pass(tmp_path: Path) -> None:
    """Buckets are released along the backward pass as the targets are."""
    spec = cell(tmp_path, "ddp", stands_for={"scenario": "larger.yaml", "bytes": 0.1})
    plan, target = ResolvedRun.of(spec).plan.at(5), ResolvedRun.of(spec).target_plan.at(5)
    for share in (0.25, 0.5, 0.75, 1.0):
        ours = sum(t.size for t in plan if t.ready <= share)
        theirs = 0.1 * sum(t.size for t in target if t.ready <= share)
        assert ours == pytest.approx(theirs, abs=0.1 * sum(t.size for t in target) / 8)


def test_unequal_links_are_projected_by_the_simulator(tmp_path: Path) -> None:
    uneven: dict[str, Any] = {**TOPOLOGY, "sites": {"a": {"up": "500 Mbit"}, "b": {}, "c": {}, "d": {}}}
    equal, slower = cell(tmp_path, "ddp"), cell(tmp_path, "ddp", topologies=[uneven])
    assert project_target(equal).evaluator == "closed form"
    assert project_target(slower).evaluator == "simulated"
    assert project_target(slower).seconds > 1.5 * project_target(equal).seconds


def test_fewer_steps_are_projected_for_a_run_that_was_stopped(tmp_path: Path) -> None:
    spec = cell(tmp_path, "ddp")
    assert project_target(spec, 5).seconds == pytest.approx(project_target(spec).seconds / 2)


def test_a_run_is_predicted_as_it_is_run(tmp_path: Path) -> None:
    spec = cell(tmp_path, "fomoe")
    assert (
        predict(spec).payload_bytes
        == ResolvedRun.of(spec).plan.payload_bytes
        > ResolvedRun.of(spec).own_plan.payload_bytes
    )


def test_scenario_options_apply_where_the_suite_has_none(tmp_path: Path) -> None:
    """The options of the scenario hold where the suite has none."""
    spec = cell(tmp_path, "streaming_diloco")
    assert spec.options == {"wire_dtype": "fp4", "sync_every": 10, "layers_per_fragment": 1}
    assert spec.stands_for is not None
    assert spec.stands_for.options == {"wire_dtype": "fp4", "sync_every": 10}


def test_a_record_needs_no_scenario(tmp_path: Path) -> None:
    spec = cell(tmp_path, "lordo")
    (tmp_path / "larger.yaml").unlink()
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.run_id("code") == spec.run_id("code")
    assert ResolvedRun.of(again).plan == ResolvedRun.of(spec).plan
    assert ResolvedRun.of(again).topology == ResolvedRun.of(spec).topology


def test_stands_for_is_part_of_a_runs_identity(tmp_path: Path) -> None:
    """What a run stands for is part of its identity and of no others; so for unlike sites and devices."""
    spec = cell(tmp_path, "diloco")
    other = cell(tmp_path, "diloco", stands_for={"scenario": "larger.yaml", "bytes": 0.03})
    assert spec.run_id("code") != other.run_id("code")
    plain = spec.model_copy(update={"stands_for": None})
    document = plain.model_dump(mode="json", exclude={"stands_for", "schema_version"})
    del document["compute"]["sites"], document["compute"]["device"]
    digest = sha256(json.dumps([document, "code"], sort_keys=True).encode()).hexdigest()[:10]
    assert plain.run_id("code") == f"diloco-equal-s1-{digest}"
    assert ResolvedRun.of(plain).plan == ResolvedRun.of(plain).own_plan
    assert plain.time_scale == 1


def test_the_least_share_that_an_error_names_is_enough(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_suite(write_suite(tmp_path, stands_for={"scenario": "larger.yaml", "bytes": 1e-4}))
    assert error.value.field == "stands_for.bytes"
    assert "methods.0" in error.value.where
    least = float(error.value.allowed.split()[0])
    ddp = [{"method": "ddp", "options": {"bucket_mb": 0.5}}]
    assert load_suite(write_suite(tmp_path, methods=ddp, stands_for={"scenario": "larger.yaml", "bytes": least}))
    with pytest.raises(InputError):
        load_suite(write_suite(tmp_path, methods=ddp, stands_for={"scenario": "larger.yaml", "bytes": 0.98 * least}))


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"stands_for": {"scenario": "smaller", "bytes": SHARE}}, "", "photon-7b"),
        ({"stands_for": {"scenario": "larger.yaml", "bytes": 0}}, "stands_for.bytes", "greater than 0"),
        ({"stands_for": {"scenario": "larger.yaml"}}, "stands_for.bytes", "must be given"),
        ({"compute": {"mode": "native"}}, "compute.mode", "paced"),
        ({"faults": [{"kind": "crash", "site": "a", "step": 3}]}, "faults", "none together"),
        ({"sites": 2}, "topologies.equal", "the 4 sites of larger"),
        ({"methods": ["single"]}, "methods.0.method", "ddp"),
        ({"methods": [{"method": "photon", "label": "mine"}]}, "methods.0.label", "photon ps"),
        ({"methods": [{"method": "diloco", "options": {"sync_every": 5}}]}, "methods.0.options", "periods"),
        ({"methods": [{"method": "fomoe", "options": {"replication": 1}}]}, "methods.0.options", "members"),
        (
            {"topologies": [{**TOPOLOGY, "defaults": {**TOPOLOGY["defaults"], "loss": "1 %"}}]},
            "topologies.equal",
            "rates",
        ),
        (
            {"topologies": [{**TOPOLOGY, "timeline": [{"at": "5 s", "crash": {"site": "a"}}]}]},
            "topologies.equal.timeline",
            "none",
        ),
    ],
)
def test_what_cannot_be_scaled_is_refused(tmp_path: Path, changes: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InputError) as error:
        load_suite(write_suite(tmp_path, **changes))
    assert error.value.field == field
    assert allowed in error.value.allowed


def test_the_shipped_suite_is_within_this_hosts_envelope() -> None:
    """The shipped suite stands for the scenario within what this host emulates well."""
    scenario = load_scenario(ROOT / "scenarios" / "photon-7b.yaml")
    cells = load_suite(ROOT / "suites" / "scaled-7b.yaml").cells
    assert [spec.method for spec in cells] == ["ddp", "diloco", "photon", "lordo", "fomoe"]
    assert sum((spec.compute.step_seconds or 0) * spec.train.steps for spec in cells) < 400
    for spec in cells:
        topology = ResolvedRun.of(spec).topology
        assert len(topology.sites) == scenario.sites
        assert ResolvedRun.of(spec).named_topology.rate("a", "b") == scenario.rate == 10e9
        assert ResolvedRun.of(spec).named_topology.rtt("a", "b") == scenario.rtt
        assert 10e6 < topology.rate("a", "b") < 400e6
