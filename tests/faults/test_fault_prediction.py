"""A cell's faults as the cost model sees it, and its expectation held against real trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.costmodel.calibration import Recovery, load_calibration, save_calibration
from harness.costmodel.fault_inputs import fault_events
from harness.costmodel.fault_terms import FaultEvent
from harness.costmodel.fit import fit_recovery
from harness.costmodel.predict import predict
from harness.costmodel.validation import validate_runs
from harness.records.run_record import Run, read_run
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from longhaul.commands.calibrate import calibrate
from netsim.errors import InputError
from reports.pages.validation_page import page_text
from tests.faults.loopback import run_through, spec_of
from tests.projection.records import calibration, spec, topology, write_run

CRASH = {"kind": "crash", "site": "b", "step": 12, "back_after": "1 s"}
CORRUPT = {"kind": "corrupt", "site": "c", "step": 34}


def cell(*faults: dict[str, Any], method: str = "diloco", **more: Any) -> RunSpec:
    """3 sites, 40 steps of 0.05 s, synchronised every 10."""
    return spec(method, faults=faults, **more)


def test_fault_events_follow_from_the_suite() -> None:
    slow = {"kind": "straggle", "step": 3, "until": 4, "factor": 2.0, "site": "a"}
    found = fault_events(made := cell(CRASH, slow), ResolvedRun.of(made).topology, 40)
    assert set(found) == {
        FaultEvent("crash", 1, 12, None, 1.0),
        FaultEvent("straggle", 0, 3, factor=2.0),
        FaultEvent("straggle", 0, 4, factor=2.0),
    }


def test_site_events_of_a_timeline_happen_at_a_second() -> None:
    events = [
        {"at": "1 s", "crash": {"site": "c"}},
        {"at": "3 s", "restart": {"site": "c"}},
        {"from": "2 s", "to": "2.5 s", "pause": {"site": "b"}},
    ]
    made = cell(network=topology(timeline=events))
    found = fault_events(made, ResolvedRun.of(made).topology, 40)
    assert set(found) == {FaultEvent("crash", 2, None, 1.0, 2.0), FaultEvent("pause", 1, None, 2.0, 0.5)}
    assert predict(made).fault_cost is not None


def test_partitions_are_not_predicted_and_said_not_to_be() -> None:
    events = [{"at": "1 s", "partition": {"groups": [["a"], ["b", "c"]]}}, {"at": "2 s", "heal": "all"}]
    found = predict(cell(CRASH, network=topology(timeline=events)))
    assert found.fault_cost is None
    assert "partitions" in found.why_not


@pytest.mark.parametrize(("replication", "goes_on"), [(1, False), (2, True)])
def test_fomoe_continues_while_every_expert_has_a_holder(replication: int, goes_on: bool) -> None:
    """Fomoe goes on as long as every expert has a living holder."""
    shape = {"kind": "moe", "layers": 2, "width": 16, "heads": 2, "experts": 6, "top_k": 2, "sequence": 64}
    options = {"sync_every": 10, "replication": replication}
    found = predict(cell({"kind": "crash", "site": "b", "step": 12}, method="fomoe", options=options, model=shape))
    assert found.fault_cost is not None
    assert (found.fault_cost.abandoned == "") == goes_on == (found.wall_seconds is not None)
    assert ("cannot continue" in found.why_not) != goes_on


@pytest.mark.parametrize("method", ["ddp", "diloco", "photon"])
def test_the_fault_model_equals_the_simulation_without_faults(method: str) -> None:
    """Without faults the fault model takes as long as the simulation."""
    calm = predict(cell(method=method), calibration(transfer_seconds=1e-3)).wall_seconds
    late = {"kind": "straggle", "site": "a", "step": 1, "factor": 1.0001}
    walked = predict(cell(late, method=method), calibration(transfer_seconds=1e-3)).wall_seconds
    assert walked == pytest.approx(calm, rel=0.03)  # the walk's connections are warm at once


def faulty_run(folder: Path, meeting: float, start: float, *faults: dict[str, Any]) -> Run:
    """A run in which decisions took `meeting` and restarts `start` seconds, and everything else what is expected."""
    made = cell(*faults)
    known = Recovery(meeting_seconds=meeting, start_seconds=start, source="typed in by a test")
    truth = calibration().model_copy(update={"recovery": known})
    cost = predict(made, truth).fault_cost
    assert cost is not None
    changes = {name: value for name, value in cost.fields().items() if name != "abandoned"}
    crashes = [fault for fault in faults if fault["kind"] == "crash"]
    returns = {"return_seconds": [1.0 + start for _ in crashes], "faults": {fault["kind"]: 1 for fault in faults}}
    return read_run(write_run(folder, made, truth, **changes, **returns))


def test_fitted_recovery_constants_predict_other_runs(tmp_path: Path) -> None:
    """The constants of recovery are found in runs and predict others."""
    seen = faulty_run(tmp_path / "seen", 0.4, 0.3, CRASH)
    found = fit_recovery([seen], calibration())
    assert found is not None
    assert found.meeting_seconds == pytest.approx(0.4, abs=0.001)
    assert found.start_seconds == pytest.approx(0.3, abs=0.001)
    assert found.fitted_from == (seen.result.id,)
    unseen = faulty_run(tmp_path / "unseen", 0.4, 0.3, CRASH, CORRUPT)
    known = calibration().model_copy(update={"recovery": found})
    validation = validate_runs([seen, unseen], known)
    assert list(validation.left_out) == [seen.result.id]
    assert validation.rows == ()
    (row,) = validation.faults
    assert all(abs(one.error or 0.0) < 0.01 for one in row.quantities.values())
    errors = validation.to_json()["misfortune"]["errors"]
    assert errors["tokens_lost"]["exact"] == errors["tokens_lost"]["runs"] == 1


def test_fitting_recovery_keeps_the_rest_of_a_calibration(tmp_path: Path) -> None:
    """A calibration keeps all but its recovery when that is fitted onto it."""
    base, output = tmp_path / "base.yaml", tmp_path / "more.yaml"
    save_calibration(calibration(transfer_seconds=1e-3), base)
    run = faulty_run(tmp_path / "runs", 0.4, 0.3, CRASH)
    calibrate([tmp_path / "runs"], output, onto=base, as_json=True)
    found = load_calibration(output)
    assert found.recovery is not None
    assert found.recovery.fitted_from == (run.result.id,)
    assert found.model_copy(update={"recovery": None}) == load_calibration(base)


def test_the_page_sets_what_faults_cost_beside_what_was_expected(tmp_path: Path) -> None:
    run = faulty_run(tmp_path, 0.4, 0.3, CRASH, CORRUPT)
    page = page_text(validate_runs([run], calibration()), calibration())
    assert "| wasted tokens | 1 | 1 | 0.0 | 0.0 |" in page
    assert f"| {run.result.id} | 1 corrupt, 1 crash | 3 / 3 |" in page
    calm = validate_runs([read_run(write_run(tmp_path / "calm", cell(), calibration()))], calibration())
    assert "cost of faults" not in page_text(calm, calibration())


def test_runs_without_recoveries_fit_no_recovery_constants(tmp_path: Path) -> None:
    """Runs that recovered from nothing teach nothing about recovery."""
    calm = read_run(write_run(tmp_path, cell(), calibration()))
    assert fit_recovery([calm], calibration()) is None
    save_calibration(calibration(), base := tmp_path / "base.yaml")
    with pytest.raises(InputError, match="valid runs that recovered"):
        calibrate([tmp_path], tmp_path / "more.yaml", onto=base)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("method", "options"), [("ddp", {}), ("diloco", {"sync_every": 4})])
def test_what_trainers_lose_is_what_was_expected(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, method: str, options: dict[str, Any]
) -> None:
    made = spec_of(
        tmp_path,
        method,
        options,
        sites=3,
        model="tiny",
        faults=[{"kind": "crash", "site": "c", "step": 6}],
        train={"steps": 12, "checkpoint_every": 4},
        compute={"mode": "paced", "step_seconds": 0.4},
        network={"timeout_seconds": 60},
    )
    expected = predict(made).fault_cost
    result, _ = run_through(made, tmp_path / "run", tmp_path_factory.mktemp("cache"))
    assert result.valid, result.why_invalid
    assert expected is not None
    measured = (result.generations, result.tokens_lost, result.bytes_repeated, result.bytes_caught_up)
    assert measured == (
        expected.generations,
        expected.tokens_lost,
        expected.bytes_repeated,
        expected.bytes_caught_up,
    )
    assert len(result.detection_seconds or []) == len(expected.detection_seconds) == 1
    assert len(result.recovery_seconds or []) == len(expected.recovery_seconds) == 1
