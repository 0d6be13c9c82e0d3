"""What is compared, and how: valid runs only, paired by seed, to the same loss."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reports.answers import answers
from reports.records import collect
from reports.study import Study, natural
from tests.reports.made_up import Network, RecordedRun, write_grid

LAN, WAN = Network("lan", 1e9, 0.0004), Network("wan", 100e6, 0.08)


def study(folder: Path, baseline: str | None = None) -> Study:
    return Study(collect([folder], baseline))


def test_the_training_clock_leaves_out_evaluation(tmp_path: Path) -> None:
    RecordedRun(steps=20, every=10).write(tmp_path)
    curve = study(tmp_path).curves
    steps = study(tmp_path).steps
    assert curve["step"].tolist() == [10, 20]
    last = steps.loc[steps["step"] == 20, "clock"].max()
    assert curve["seconds"].iloc[-1] == pytest.approx(last - 2 * 0.05)


def test_tokens_are_those_of_all_workers_and_bytes_the_mean(tmp_path: Path) -> None:
    RecordedRun(steps=20, network=WAN).write(tmp_path)
    found = study(tmp_path)
    assert found.curves["tokens"].iloc[-1] == 4 * 20 * 8 * 128
    assert found.curves["bytes"].iloc[-1] == found.runs["payload_bytes_per_worker"].iloc[0]


def test_invalid_runs_count_nowhere_but_in_the_list(tmp_path: Path) -> None:
    write_grid(tmp_path, ("ddp",), (WAN,), (1, 2), steps=20)
    RecordedRun("ddp", "ddp", WAN, seed=3, steps=20, valid=False, changes={"final_loss": 0.0}).write(tmp_path)
    found = study(tmp_path)
    assert len(found.everything) == 3
    assert sorted(found.runs["seed"]) == [1, 2]
    assert sorted(found.curves["seed"].unique()) == [1, 2]
    assert found.runs["final_loss"].min() > 1


def test_the_default_target_is_the_lowest_common_loss(tmp_path: Path) -> None:
    """Without a target times are to the lowest loss that every run reached."""
    RecordedRun("ddp", "ddp", LAN).write(tmp_path)
    RecordedRun("diloco", "diloco", LAN, speed=0.8).write(tmp_path)
    found = study(tmp_path)
    slower = found.curves[found.curves["label"] == "diloco"]
    assert found.levels["made-up"].loss == slower["loss"].min()
    assert found.runs["seconds_to_level"].notna().all()


def test_a_target_that_was_not_reached_stays_missing(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp", LAN, target=1.9).write(tmp_path)
    RecordedRun("diloco", "diloco", LAN, target=1.9, speed=0.5).write(tmp_path)
    found = study(tmp_path)
    times = found.runs.set_index("label")["seconds_to_level"]
    assert times.notna()["ddp"]
    assert pd.isna(times["diloco"])
    (answer,) = answers(found)
    assert answer.fastest == "ddp"
    assert answer.not_reached == ("diloco",)
    assert "not reached by every run of diloco" in answer.evidence


def test_an_unreached_target_falls_back_to_a_common_loss(tmp_path: Path) -> None:
    """A target that nobody reached gives way to a loss that all did."""
    write_grid(tmp_path, networks=(LAN,), seeds=(1,), target=0.1)
    level = study(tmp_path).levels["made-up"]
    assert level.loss > 1
    assert "no run reached the suite's target 0.100" in level.words


def test_comparisons_are_paired_by_seed(tmp_path: Path) -> None:
    write_grid(tmp_path, networks=(WAN,), seeds=(1, 2, 3))
    RecordedRun("diloco", "diloco", WAN, seed=4).write(tmp_path)
    found = study(tmp_path).against_baseline("made-up", "wan", "diloco", "seconds_to_level")
    assert found is not None
    assert found.n == 3
    assert found.ratio > 3


def test_one_seed_on_two_networks_counts_once_for_loss(tmp_path: Path) -> None:
    """The same seed on another network is no new evidence of convergence."""
    write_grid(tmp_path, networks=(LAN, WAN), seeds=(1, 2), steps=20)
    assert study(tmp_path).convergence("made-up", "diloco").n == 2


def test_networks_are_listed_from_fast_to_slow(tmp_path: Path) -> None:
    """Networks are listed from fast to slow and the baseline first."""
    write_grid(tmp_path, ("photon", "diloco", "ddp"), (WAN, LAN), (1,), steps=20)
    found = study(tmp_path, "photon")
    assert [topology for _, topology in found.places] == ["lan", "wan"]
    assert found.labels == ["photon", "ddp", "diloco"]


def test_the_answer_names_the_winner_of_each_network(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp", LAN, speed=3.0).write(tmp_path)
    RecordedRun("diloco", "diloco", LAN).write(tmp_path)
    RecordedRun("ddp", "ddp", WAN, speed=3.0).write(tmp_path)
    RecordedRun("diloco", "diloco", WAN).write(tmp_path)
    lan, wan = answers(study(tmp_path))
    assert lan.fastest == "ddp"
    assert "it is the baseline itself" in lan.evidence
    assert wan.fastest == "diloco"
    assert wan.speedup is not None
    assert "times as fast as ddp" in wan.evidence
    assert wan.network == "100 Mbit/s, RTT up to 80 ms"


def test_times_within_two_percent_are_called_level(tmp_path: Path) -> None:
    for label in ("diloco", "photon"):
        RecordedRun(label, label, WAN).write(tmp_path)
    (answer,) = answers(study(tmp_path))
    assert "are level" in answer.headline


def test_labels_sort_as_people_count() -> None:
    assert sorted(["r16", "r4", "r4.5", "a"], key=natural) == ["a", "r4", "r4.5", "r16"]


def test_losing_a_reached_target_again_is_named(tmp_path: Path) -> None:
    """A method that reached the loss and lost it again is named."""
    RecordedRun("ddp", "ddp", LAN, target=3.0).write(tmp_path)
    RecordedRun("diloco", "diloco", LAN, target=3.0, changes={"final_loss": 3.9}).write(tmp_path)
    (answer,) = answers(study(tmp_path))
    assert answer.fell_back == ("diloco",)
    assert "diloco reached it and ended above it" in answer.evidence
