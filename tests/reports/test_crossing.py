"""Time to a loss is interpolated between evaluations, with bounds, and a bound alone where only that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reports.answers import answers
from reports.crossing import Crossing, crossing
from reports.figures.speedup import speedups
from reports.statistics import Range, ratio_range
from reports.summary import methods_table
from tests.reports.made_up import RecordedRun
from tests.reports.test_study import study


def test_a_crossing_lies_between_the_evaluations_around_it() -> None:
    found = crossing([10.0, 20.0, 30.0], [3.0, 2.5, 2.0], 2.375)
    assert found == Crossing(22.5, 20.0, 30.0, at_first=False)


def test_a_loss_before_the_first_evaluation_has_an_upper_bound() -> None:
    """A loss below the first evaluation has an upper bound alone."""
    assert crossing([10.0, 20.0], [2.3, 2.1], 2.4) == Crossing(10.0, 0.0, 10.0, at_first=True)


def test_a_loss_that_is_never_reached_has_no_crossing() -> None:
    assert crossing([10.0, 20.0], [3.0, float("nan")], 2.4) is None


def test_the_first_of_several_crossings_counts() -> None:
    found = crossing([1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 3.0, 1.0], 2.5)
    assert found is not None
    assert found.seconds == pytest.approx(1.5)


def test_the_range_of_a_ratio_follows_from_the_evaluations() -> None:
    assert ratio_range([(20.0, 30.0)], [(10.0, 15.0)]) == Range(20 / 15, 3.0)
    assert ratio_range([(20.0, 30.0)], [(0.0, 15.0)]) == Range(20 / 15, float("inf"))


def test_time_to_loss_is_not_rounded_up_to_an_evaluation(tmp_path: Path) -> None:
    for every in (10, 25):
        folder = tmp_path / str(every)
        for method in ("ddp", "diloco"):
            RecordedRun(method, method, seed=1, every=every, target=2.3).write(folder)
    coarse, fine = (study(tmp_path / str(every)).runs for every in (25, 10))
    assert coarse["seconds_to_level"].tolist() == pytest.approx(fine["seconds_to_level"].tolist(), rel=0.06)
    assert (coarse["seconds_to_level_low"] < coarse["seconds_to_level"]).all()
    assert (coarse["seconds_to_level"] < coarse["seconds_to_level_high"]).all()


def test_a_crossing_at_the_first_evaluation_is_marked(tmp_path: Path) -> None:
    for method in ("ddp", "diloco"):
        RecordedRun(method, method, every=50, target=5.0).write(tmp_path)
    found = study(tmp_path)
    (answer,) = answers(found)
    assert answer.upper_bound == ("ddp", "diloco")
    assert "at the first evaluation" in answer.evidence
    assert all(row["seconds_to_level"].text.startswith("≤") for row in methods_table(found).rows)


def test_a_host_that_was_too_slow_names_no_winner(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp").write(tmp_path)
    RecordedRun("diloco", "diloco", changes={"slot_overruns": 200, "marks": ["slots overran"]}).write(tmp_path)
    found = study(tmp_path)
    (answer,) = answers(found)
    assert "no winner" in answer.headline
    assert "raise compute.step_seconds" in answer.evidence
    assert "overrun_share" in {column.key for column in methods_table(found).columns}


def test_the_answer_names_cause_setting_and_other_losses(tmp_path: Path) -> None:
    for method in ("ddp", "diloco"):
        RecordedRun(method, method, target=2.9).write(tmp_path)
    (answer,) = answers(study(tmp_path))
    assert "ddp waits" in answer.why
    assert answer.why.endswith("for the network")
    longer = {
        label: (seconds + 1e3 * (label == answer.fastest), wall) for label, (seconds, wall) in answer.waits.items()
    }
    assert f"{answer.fastest} waits longer" in replace(answer, waits=longer).why
    assert "sites" in answer.setting
    assert "At loss" in answer.elsewhere


def test_the_speedup_curve_ends_where_one_side_ends(tmp_path: Path) -> None:
    for method in ("ddp", "diloco"):
        RecordedRun(method, method).write(tmp_path)
    found = study(tmp_path)
    data = speedups(found, *found.places[0])
    assert data["loss"].min() == pytest.approx(found.curves.groupby("run")["loss"].min().max())
    assert (data["speedup"] > 0).all()
