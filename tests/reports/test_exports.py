"""Steps leave for other programs whole, and under names that no record can lead astray."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reports.exports import write_parquet, write_tensorboard
from reports.records import collect
from tests.reports.made_up import RecordedRun


def test_the_parquet_file_has_every_step_of_every_worker(tmp_path: Path) -> None:
    for seed in (1, 2):
        RecordedRun(seed=seed, steps=20, metrics={"routing_entropy/0": 0.9}).write(tmp_path / "runs")
    write_parquet(collect([tmp_path / "runs"]), tmp_path / "steps.parquet")
    frame = pd.read_parquet(tmp_path / "steps.parquet")
    assert len(frame) == 2 * 4 * 20
    assert {"label", "topology", "seed", "rank", "communication_seconds", "metric.routing_entropy/0"} <= set(
        frame.columns
    )


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    RecordedRun("../../up", steps=20, suite="..\\escape ~").write(tmp_path / "runs")
    write_tensorboard(collect([tmp_path / "runs"]), tmp_path / "out")
    (directory,) = (tmp_path / "out").iterdir()
    events = loading.EventAccumulator(str(directory))
    events.Reload()
    losses = events.Scalars("evaluation_loss")
    assert [event.step for event in losses] == [10, 20]
    assert "seconds/communication" in events.Tags()["scalars"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]
