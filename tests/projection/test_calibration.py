"""Constants fitted to stored runs, and predictions held against runs that the fit did not see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.costmodel.calibration import Calibration, NativeStep, Span, load_calibration, save_calibration
from harness.costmodel.fit import fit
from harness.costmodel.predict import predict
from harness.costmodel.validation import held_out_error, validate_runs
from harness.records.archive import read_runs, store_runs
from harness.records.run_record import read_run
from longhaul.commands.calibrate import calibrate
from longhaul.commands.validate import validate
from netsim.errors import InputError
from netsim.traffic import Plan, Recurrence, Transfer
from tests.projection.records import calibration, spec, topology, write_run

TRUTH = {"efficiency": 0.93, "transfer_seconds": 8e-3, "byte_seconds": 4e-9, "host_bandwidth": 2e8}
NETWORKS = [topology("10 Mbit", "20 ms"), topology("100 Mbit", "80 ms"), topology("1000 Mbit", "10 ms", 4)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine runs of a known world: six to fit to, three to predict."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("ddp", "diloco"):
        for network in NETWORKS:
            write_run(folder / "fit", spec(method, network), calibration(**TRUTH))
    for network in NETWORKS:
        write_run(folder / "unseen", spec("photon", network), calibration(**TRUTH))
    return folder


@pytest.fixture(scope="module")
def fitted(runs: Path) -> Calibration:
    return fit(read_runs([runs / "fit"]), "test", "runs")


def test_a_fit_finds_constants_that_explain_the_runs(fitted: Calibration) -> None:
    assert fitted.error.mean < 0.01
    assert fitted.error.max < 0.03
    assert fitted.error.runs == 6


def test_a_fit_predicts_a_method_that_it_did_not_see(runs: Path, fitted: Calibration) -> None:
    validation = validate_runs(read_runs([runs]), fitted)
    assert validation.overall is not None
    assert validation.overall.runs == 3
    assert validation.overall.max < 2.0
    assert validation.bytes_exact
    assert validation.memory_exact
    assert set(validation.left_out) == set(fitted.fitted_from)


def test_a_calibration_names_its_source_and_domain(fitted: Calibration) -> None:
    """A calibration says where it comes from and where it holds."""
    assert len(fitted.fitted_from) == 6
    assert "synthetic" in fitted.source
    assert fitted.environment["cpu"] == "a test"
    assert fitted.domain.rate == Span(low=10e6, high=1e9)
    assert fitted.domain.rtt == Span(low=0.01, high=0.08)
    assert fitted.domain.sites == Span(low=3, high=4)
    assert predict(spec("diloco", NETWORKS[0]), fitted).extrapolated is False
    assert predict(spec("diloco", topology("2000 Mbit")), fitted).extrapolated is True
    assert predict(spec("diloco"), None).extrapolated is True


def test_a_calibration_file_reads_back_as_it_was_written(fitted: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    save_calibration(fitted, path)
    assert load_calibration(path) == fitted


def test_the_error_on_runs_held_out_is_that_of_communication(runs: Path, fitted: Calibration) -> None:
    """It counts only runs that the fit did not see."""
    found = held_out_error(read_runs([runs]), fitted, "runs")
    assert found.runs == 3
    assert 0 < found.mean <= found.max < 0.1
    with pytest.raises(InputError, match="that the fit did not see"):
        held_out_error(read_runs([runs / "fit"]), fitted, "runs")


def test_without_a_calibration_the_basis_is_first_principles(runs: Path) -> None:
    validation = validate_runs(read_runs([runs]), None)
    assert validation.basis == "first principles"
    assert validation.overall is not None
    assert validation.overall.runs == 9
    assert validation.overall.mean > 1.0  # what the constants above do is missing


def test_a_differing_ledger_is_found(tmp_path: Path) -> None:
    directory = write_run(tmp_path, spec(), calibration(), payload_bytes_per_worker=1.0)
    assert not validate_runs([read_run(directory)], None).bytes_exact


def test_stored_records_are_compared_like_the_runs_themselves(runs: Path, tmp_path: Path) -> None:
    found = read_runs([runs])
    store_runs(found, tmp_path / "runs.jsonl")
    assert validate_runs(read_runs([tmp_path / "runs.jsonl"]), None) == validate_runs(found, None)


def test_a_damaged_record_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"spec": {}, "result": {}, "environment": {}}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 1.spec"):
        read_runs([path])


def test_invalid_runs_are_named_and_not_compared(tmp_path: Path) -> None:
    directory = write_run(tmp_path, spec(), calibration(), valid=False, why_invalid=["a link was slow"])
    validation = validate_runs([read_run(directory)], None)
    assert validation.rows == ()
    assert "a link was slow" in next(iter(validation.left_out.values()))


def test_a_run_on_a_host_too_slow_for_its_clock_is_not_compared(tmp_path: Path) -> None:
    late = {"data": 0.0, "compute": 2.1, "pacing": 0.0, "communication": 1.0, "evaluation": 0.0, "checkpoint": 0.0}
    directory = write_run(tmp_path, spec(), calibration(), seconds=late)
    validation = validate_runs([read_run(directory)], None)
    assert "5.0% too long" in next(iter(validation.left_out.values()))


def test_native_compute_is_predicted_from_measured_steps(tmp_path: Path) -> None:
    """Native computation is predicted from measured steps only."""
    native = spec(compute={"mode": "native"})
    assert predict(native, None).wall_seconds is None
    assert "native" in predict(native, None).why_not


def test_native_steps_are_fitted_onto_a_calibration(tmp_path: Path) -> None:
    """Of all steps but a worker's first, and from then on known as seen; the rest of the calibration stays."""
    native, base, output = spec(compute={"mode": "native"}), tmp_path / "base.yaml", tmp_path / "more.yaml"
    step = NativeStep(
        method="diloco", model=native.model.name, batch=native.train.batch, sites=3, seconds=0.2, spread=0
    )
    truth = calibration().with_native_steps([step])
    log = (directory := write_run(tmp_path / "runs", native, truth)) / "rank-0" / "steps.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line, seconds in zip(lines, (0.9, 0.2), strict=True):
        line["seconds"]["compute"] = seconds
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_calibration(calibration(), base)
    calibrate([tmp_path / "runs"], output, onto=base, as_json=True)
    found = load_calibration(output)
    (fitted,) = found.native_steps
    assert fitted == step.model_copy(update={"fitted_from": (directory.name,)})
    assert found.seen == calibration().seen | {directory.name}
    assert found.model_copy(update={"native_steps": ()}) == load_calibration(base)
    assert predict(native, found) == predict(native, truth)


def test_too_few_runs_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, spec(), calibration())
    with pytest.raises(InputError, match="at least 3 valid runs"):
        fit(read_runs([tmp_path]), "x", str(tmp_path))


def test_a_plan_stops_where_its_run_was_stopped() -> None:
    sync = Transfer("x", 100, (0, 1))
    plan = Plan(2, 100, (Recurrence((sync,), 10, 10, 100), Recurrence((sync,), 1, 95, 100)))
    assert plan.truncated(35).payload_bytes == plan.payload_bytes_until(35)
    assert plan.truncated(100) is plan


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name: x", "source"),
        ("constants: {efficiency: 3}", "efficiency"),
        ("nonsense: 1", "nonsense"),
        ("- 1", "list"),
    ],
)
def test_a_bad_calibration_file_is_one_clear_error(text: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_calibration(path)
    assert str(path) in str(error.value)


def test_the_commands_print_one_json_document(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "calibration.yaml"
    for network in NETWORKS:
        write_run(tmp_path / "fit", spec("diloco", network), calibration(**TRUTH))
    calibrate([tmp_path / "fit"], output, jobs=1, as_json=True)
    assert json.loads(capsys.readouterr().out)["fitted_from"]
    validate([runs], output, docs=tmp_path / "docs", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["bytes_exact"] is True
    assert printed["mean_absolute_percentage_error"] < 5
    assert {"runs", "max_absolute_percentage_error", "by_method", "by_topology"} <= printed.keys()
    page = (tmp_path / "docs" / "validation.md").read_text(encoding="utf-8")
    assert "figures/validation-parity.png" in page
    assert all(row["id"] in page for row in printed["runs"])
    assert (tmp_path / "docs" / "figures" / "validation-parity.svg").is_file()
