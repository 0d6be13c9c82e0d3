"""What a suite's faults did is drawn and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.build import build_report
from reports.faults import faults_table
from reports.figures.fault_figures import what_happened
from reports.predictions import predict_runs
from reports.records import collect
from reports.study import Study
from reports.style.quantities import NARROW
from tests.reports.made_up import RecordedRun, rewrite

COSTS = {
    "faults": {"crash": 1},
    "generations": 3,
    "tokens_committed": 90_000,
    "tokens_lost": 10_000,
    "bytes_repeated": 0,
    "bytes_caught_up": 4_000_000,
    "detection_seconds": [0.5, 1.5],
    "recovery_seconds": [2.0],
}
EVENTS = [
    {"at": 5.0, "kind": "go"},
    {"at": 7.0, "kind": "crash", "site": "site-1", "rank": 1, "step": 20},
    {"at": 8.5, "kind": "detected", "site": "site-0", "rank": 0, "generation": 1},
    {"at": 6.0, "kind": "links", "detail": "site-0 -> site-1"},
    {"at": 4.0, "kind": "gate", "passed": True},
]


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for label, method in (("ddp", "ddp"), ("diloco", "diloco")):
        directory = RecordedRun(label, method, changes=COSTS).write(folder)
        (directory / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    return folder


def test_events_are_drawn_on_the_training_clock_at_their_site(faulty: Path) -> None:
    drawing = what_happened(Study(collect([faulty])))
    assert drawing is not None
    events = drawing.data[(drawing.data["what"] == "event") & (drawing.data["label"] == "ddp")]
    assert sorted(zip(events["kind"], events["rank"], events["start"], strict=True)) == [
        ("crash", 1, 2.0),
        ("detected", 0, 3.5),
        ("links", -1, 1.0),
    ]


def test_a_worker_trains_and_waits_as_long_as_its_steps_say(faulty: Path) -> None:
    study = Study(collect([faulty]))
    drawing = what_happened(study)
    assert drawing is not None
    waits = drawing.data[(drawing.data["what"] == "waiting for others") & (drawing.data["label"] == "diloco")]
    run = int(study.runs.loc[study.runs["label"] == "diloco", "run"].iloc[0])
    steps = study.steps[study.steps["run"] == run]
    assert (waits["end"] - waits["start"]).sum() == pytest.approx(steps["communication_seconds"].sum(), rel=1e-6)


def test_what_it_cost_stands_in_a_table(faulty: Path) -> None:
    table = faults_table(Study(collect([faulty])))
    assert [row["label"].raw for row in table.rows] == ["ddp", "diloco"]
    row = table.rows[0]
    assert [row[key].raw for key in ("faults", "tokens_lost", "lost_share", "detection", "recovery", "caught_up")] == [
        1,
        10_000,
        0.1,
        1.5,
        2.0,
        4_000_000,
    ]


def test_what_the_cost_model_expected_stands_beside_it(tmp_path: Path) -> None:
    directory = RecordedRun(options={"sync_every": 20}, changes=COSTS).write(tmp_path)
    rewrite(directory / "spec.json", faults=[{"kind": "crash", "site": "b", "step": 30}])
    collection = collect([tmp_path])
    table = faults_table(Study(collection, predict_runs(collection.runs, None)))
    (row,), (beside,) = table.rows, table.extra
    lost = 9 * 8 * 128  # nine steps since it last synchronised, noticed by the evaluation that ends its tenth
    assert beside["predicted_tokens_lost"] == lost
    assert beside["error_of_tokens_lost"] == pytest.approx(lost / 10_000 - 1)
    assert row["tokens_lost"].spread == f"[9{NARROW}220]"
    assert beside["predicted_generations"] == 2
    assert "expected, from first principles" in table.caption


@pytest.mark.slow
def test_only_reports_with_faults_have_fault_sections(faulty: Path, tmp_path: Path) -> None:
    """The report has both and a report without faults has neither."""
    document = build_report([faulty], tmp_path / "report")
    assert "fault-timeline" in document["figures"]
    assert document["tables"]["faults"]
    RecordedRun().write(tmp_path / "calm")
    calm = build_report([tmp_path / "calm"], tmp_path / "calm-report")
    assert "fault-timeline" not in calm["figures"]
    assert "faults" not in calm["tables"]
