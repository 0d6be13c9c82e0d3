"""Declared faults: events follow from seed, site and step; impossible ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.bench.soak import LINKS
from harness.elastic.returns import declared_absence
from harness.records.logs import WorkerLog, read_worker_log
from harness.spec.faults import Fault
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from netsim.errors import InputError
from netsim.topology import topology_from

SUITE: dict[str, Any] = {
    "name": "faulty",
    "train": {"steps": 50},
    "methods": ["ddp", "diloco"],
    "topologies": ["transatlantic"],
}


def suite_with(tmp_path: Path, *faults: dict[str, Any]) -> tuple[RunSpec, ...]:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "faults": list(faults)}))
    return load_suite(path).cells


def test_every_method_has_the_same_faults(tmp_path: Path) -> None:
    first, second = suite_with(tmp_path, {"kind": "crash", "site": "ohio", "step": 7, "back_after": "3 s"})
    assert first.faults == second.faults
    assert first.faults[0].back_after == 3.0
    assert RunSpec.model_validate_json(first.model_dump_json()) == first


def test_what_is_drawn_depends_on_seed_site_and_step_alone() -> None:
    fault = Fault(kind="straggle", step=1, until=2000, probability=0.1, factor=2.0)

    def steps_with_faults(seed: int, site: str) -> list[int]:
        return [step for step in range(1, 2001) if fault.happens(0, seed, site, step)]

    assert steps_with_faults(1, "ohio") == steps_with_faults(1, "ohio")
    assert steps_with_faults(1, "ohio") != steps_with_faults(2, "ohio")
    assert steps_with_faults(1, "ohio") != steps_with_faults(1, "milan")
    assert 150 < len(steps_with_faults(1, "ohio")) < 250


def test_a_fault_happens_at_its_step_and_site_only() -> None:
    fault = Fault(kind="crash", site="ohio", step=7)
    assert [step for step in range(1, 20) if fault.happens(0, 1, "ohio", step)] == [7]
    assert not fault.happens(0, 1, "milan", 7)


@pytest.mark.parametrize(
    ("fault", "field", "allowed"),
    [
        ({"kind": "crash", "site": "atlantis", "step": 7}, "faults.0.site", "ohio"),
        ({"kind": "crash", "site": "ohio", "step": 51}, "faults.0.step", "50 steps"),
        ({"kind": "pause", "site": "ohio", "step": 7}, "faults.0", "for a pause: lasts"),
        ({"kind": "crash", "step": 7, "lasts": "3 s"}, "faults.0", "for a crash: back_after"),
        ({"kind": "corrupt", "step": 7, "factor": 2}, "faults.0", "none of"),
        ({"kind": "straggle", "step": 7, "until": 6, "factor": 2}, "faults.0", "until not before step"),
        ({"kind": "straggle", "step": 7, "factor": 0.5}, "faults.0.factor", "greater than 1"),
        ({"kind": "earthquake", "step": 7}, "faults.0.kind", "crash"),
    ],
)
def test_an_impossible_fault_is_refused(tmp_path: Path, fault: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InputError) as error:
        suite_with(tmp_path, fault)
    assert error.value.field == field
    assert allowed in error.value.allowed


def test_a_worker_log_cut_short_keeps_its_whole_lines(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path)
    log.add("crash", step=7)
    log.add("back")
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-5])
    assert [entry["kind"] for entry in read_worker_log(path)] == ["crash"]


@pytest.mark.parametrize(
    ("faults", "timeline", "seconds"),
    [
        ([{"kind": "crash", "site": "b", "step": 3}], [], None),
        ([{"kind": "crash", "site": "b", "step": 3, "back_after": "0 s"}], [], 0.0),
        ([{"kind": "pause", "step": 3, "lasts": "2 s"}], [], 2.0),
        ([{"kind": "pause", "site": "a", "step": 3, "lasts": "2 s"}], [], None),
        ([], [{"at": "1 s", "crash": {"site": "b"}}, {"at": "3 s", "restart": {"site": "b"}}], 3.0),
    ],
)
def test_a_return_is_declared_by_faults_or_timeline(
    tmp_path: Path, faults: list[dict[str, Any]], timeline: list[dict[str, Any]], seconds: float | None
) -> None:
    """Also without a paced clock: those who need the site then wait for its program to start."""
    sites: dict[str, Any] = {"name": "two", "defaults": LINKS, "sites": {"a": {}, "b": {}}, "timeline": timeline}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "methods": ["ddp"], "topologies": [sites], "faults": faults}))
    (spec,) = load_suite(path).cells
    played = topology_from(spec.topology, "test").timeline
    assert declared_absence(spec, played, 1) == seconds
