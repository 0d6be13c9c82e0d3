"""What runs stand for, in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.costmodel.scaled_target import project_target
from harness.spec.run_spec import RunSpec
from reports.build import build_report
from reports.figures.scaled_figure import measured_beside_projected
from reports.records import collect
from reports.scaled_table import scaled_table
from reports.study import Study
from tests.reports.made_up import RecordedRun, rewrite

STEP = 5.0  # seconds of the target for each slot of 0.1 s
TARGET: dict[str, Any] = {
    "scenario": "larger",
    "label": "as published",
    "options": {"sync_every": 20},
    "model": {"name": "large", "layers": 12, "width": 768, "heads": 12, "vocabulary": 50368, "sequence": 1024},
    "site": "one device",
    "batch": 32,
    "step_seconds": STEP,
    "bytes": 0.01,
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed in (1, 2):
        directory = RecordedRun(seed=seed, options={"sync_every": 20}).write(folder)
        rewrite(directory / "spec.json", stands_for=TARGET)
    return folder


def test_training_time_is_shown_in_target_time(runs: Path) -> None:
    """Training time is told in target time beside the projection."""
    collection = collect([runs])
    (row,) = scaled_table(Study(collection)).rows
    result = collection.runs[0].result
    spec = RunSpec.model_validate(json.loads((collection.runs[0].directory / "spec.json").read_text()))
    projected = project_target(spec)
    training = result.wall_seconds - result.seconds["evaluation"]
    assert row["time_scale"].raw == STEP / 0.1
    assert row["seconds"].raw == pytest.approx(training, rel=0.01)
    assert row["target_seconds"].raw == pytest.approx(50 * float(row["seconds"].raw or 0))
    assert row["projected_seconds"].raw == pytest.approx(projected.seconds)
    assert projected.compute_seconds == pytest.approx(100 * STEP)
    assert row["error"].raw == pytest.approx(float(row["target_seconds"].raw or 0) / projected.seconds - 1)
    assert row["tokens_per_second"].raw == pytest.approx(100 * 32 * 1024 / float(row["target_seconds"].raw or 0))
    assert row["entry"].text == "larger: as published"
    assert row["n"].raw == 2


def test_the_figure_splits_both_into_computation_and_waiting(runs: Path) -> None:
    study = Study(collect([runs]))
    drawing = measured_beside_projected(study)
    assert drawing is not None
    millions = 100 * 32 * 1024 / 1e6
    (row,) = scaled_table(study).rows
    for which, key in (("measured", "target_seconds"), ("projected", "projected_seconds")):
        bar = drawing.data[drawing.data["which"] == which]["seconds_per_million_tokens"].sum()
        assert bar * millions == pytest.approx(row[key].raw, rel=0.01)


@pytest.mark.slow
def test_only_a_report_of_runs_that_stand_for_something_has_them(runs: Path, tmp_path: Path) -> None:
    document = build_report([runs], tmp_path / "report")
    assert document["tables"]["scaled"][0]["evaluator"] == "closed form"
    assert "scaled" in document["figures"]
    RecordedRun().write(tmp_path / "plain")
    plain = build_report([tmp_path / "plain"], tmp_path / "plain-report")
    assert "scaled" not in plain["tables"]
    assert "scaled" not in plain["figures"]
