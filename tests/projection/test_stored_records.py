"""The committed measurements against the committed calibration: the model must not get worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.costmodel.calibration import Calibration, load_calibration
from harness.costmodel.fault_validation import errors_of
from harness.costmodel.validation import Validation, validate_runs
from harness.records.archive import read_runs

DOCS = Path(__file__).parents[2] / "docs"
MEAN, MAX = 5.0, 15.0  # per cent of wall time


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration(DOCS / "calibration.yaml")


@pytest.fixture(scope="module")
def validation(calibration: Calibration) -> Validation:
    return validate_runs(read_runs([DOCS / "validation-runs.jsonl"]), calibration)


def test_predicted_wall_time_is_within_the_committed_error(validation: Validation) -> None:
    overall = validation.overall
    assert overall is not None
    assert overall.mean <= MEAN
    assert overall.max <= MAX


def test_five_methods_are_compared_on_both_substrates(validation: Validation) -> None:
    """All five methods are compared on both substrates in enough cells."""
    assert set(validation.by(lambda row: row.algorithm)) == {"ddp", "diloco", "photon", "lordo", "fomoe"}
    assert set(validation.by(lambda row: row.substrate)) == {"netns/nfqueue", "docker/nfqueue"}
    assert len({(row.label, row.topology, row.model, row.substrate) for row in validation.rows}) >= 24


def test_bytes_and_persistent_memory_are_exact(validation: Validation) -> None:
    assert validation.bytes_exact
    assert validation.memory_exact


def test_no_compared_run_is_one_of_the_fit(validation: Validation, calibration: Calibration) -> None:
    assert validation.rows
    assert not {row.id for row in validation.rows} & set(calibration.fitted_from)


def test_the_page_shows_every_compared_run(validation: Validation) -> None:
    page = (DOCS / "validation.md").read_text(encoding="utf-8")
    assert all(f"| {row.id} |" in page for row in validation.rows)


@pytest.fixture(scope="module")
def faulted(calibration: Calibration) -> Validation:
    return validate_runs(read_runs([DOCS / "fault-runs.jsonl"]), calibration)


def test_predicted_groups_and_state_transfers_are_exact(faulted: Validation) -> None:
    """The predicted numbers of generations and of state transfers are exact."""
    errors = errors_of(faulted.faults)
    for name in ("generations", "bytes_caught_up"):
        assert errors[name].exact == errors[name].runs == len(faulted.faults) > 0, name


def test_predicted_wasted_tokens_are_exact_but_for_join_steps(faulted: Validation) -> None:
    """Only where members meet at every step can one of them have begun another; who has is a matter of milliseconds."""
    for row in faulted.faults:
        error = row.quantities["tokens_lost"].error
        assert error is not None
        assert abs(error) <= (0.05 if row.algorithm == "ddp" else 0.0), row.id


def test_predicted_fault_seconds_are_within_committed_error(faulted: Validation) -> None:
    """The predicted cost of faults in seconds is within the committed error."""
    errors = errors_of(faulted.faults)
    for name, most in (("detection", 10.0), ("recovery", 25.0), ("wall", 10.0), ("bytes_repeated", 10.0)):
        mean = errors[name].mean
        assert mean is not None
        assert mean <= most, name


def test_the_page_shows_every_run_with_faults(faulted: Validation) -> None:
    page = (DOCS / "validation.md").read_text(encoding="utf-8")
    assert all(f"| {row.id} |" in page for row in faulted.faults)
