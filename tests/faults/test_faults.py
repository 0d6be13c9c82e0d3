"""Misfortune as data: what events follows from seed, site and step, and what cannot happen is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.logs import WorkerLog, read_worker_log
from harness.spec.faults import Fault
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from netsim.errors import InputError

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


def test_the_same_misfortune_strikes_every_method(tmp_path: Path) -> None:
    first, second = suite_with(tmp_path, {"kind": "crash", "site": "ohio", "step": 7, "back_after": "3 s"})
    assert first.faults == second.faults
    assert first.faults[0].back_after == 3.0
    assert RunSpec.model_validate_json(first.model_dump_json()) == first


def test_what_is_drawn_depends_on_seed_site_and_step_alone() -> None:
    fault = Fault(kind="straggle", step=1, until=2000, probability=0.1, factor=2.0)

    def struck(seed: int, site: str) -> list[int]:
        return [step for step in range(1, 2001) if fault.happens(0, seed, site, step)]

    assert struck(1, "ohio") == struck(1, "ohio")
    assert struck(1, "ohio") != struck(2, "ohio")
    assert struck(1, "ohio") != struck(1, "milan")
    assert 150 < len(struck(1, "ohio")) < 250


def test_a_fault_strikes_at_its_step_and_its_site_only() -> None:
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
def test_misfortune_that_cannot_happen_is_refused(
    tmp_path: Path, fault: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(InputError) as error:
        suite_with(tmp_path, fault)
    assert error.value.field == field
    assert allowed in error.value.allowed


def test_a_diary_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path)
    log.add("crash", step=7)
    log.add("back")
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:-5])
    assert [entry["kind"] for entry in read_worker_log(path)] == ["crash"]
