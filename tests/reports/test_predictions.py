"""A report can hold the cost model's expectation against what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.figures.prediction import predicted_against_measured
from reports.predictions import predict_runs
from reports.records import collect
from reports.study import Study
from tests.reports.made_up import RecordedRun, rewrite


def test_valid_runs_are_predicted_and_foreign_ones_skipped(tmp_path: Path) -> None:
    """Valid runs are predicted and foreign ones are passed over."""
    RecordedRun("ddp", "ddp", steps=20).write(tmp_path)
    RecordedRun("ddp", "ddp", steps=20, seed=2, valid=False).write(tmp_path)
    foreign = RecordedRun("sixth", "ddp", steps=20).write(tmp_path)
    rewrite(foreign / "spec.json", method="sixth")
    collection = collect([tmp_path])
    found = predict_runs(collection.runs, None)
    (row,) = found.frame.to_dict("records")
    assert collection.runs[int(row["run"])].spec.label == "ddp"
    assert row["predicted_wall_seconds"] > 20 * 0.1
    assert row["predicted_utilisation"] == pytest.approx(2.0 / row["predicted_wall_seconds"], rel=0.01)


def test_the_figure_states_the_error_and_what_it_rests_on(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp", steps=20).write(tmp_path)
    collection = collect([tmp_path])
    drawing = predicted_against_measured(Study(collection, predict_runs(collection.runs, None)))
    assert drawing is not None
    assert set(drawing.data["quantity"]) == {"seconds", "payload", "memory"}
    assert "Time is predicted from first principles" in drawing.caption
    assert "payload per worker: equal to the byte in 1 runs" in drawing.caption
