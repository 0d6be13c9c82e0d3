"""Two sets of records: paired differences, what differs beside them, thresholds and the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import exp
from pathlib import Path

import pytest
from typer.testing import CliRunner

from longhaul.cli import build
from netsim.errors import InputError
from reports.comparison.comparison_page import write_comparison
from reports.comparison.comparison_tables import failures
from reports.comparison.metrics import METRICS, threshold_from
from reports.comparison.record_comparison import Change, RecordComparison, compare_records
from tests.reports.made_up import Network, RecordedRun, rewrite, write_grid

NETWORKS = (Network("slow", 50e6), Network("fast", 500e6))


@dataclass(frozen=True)
class Compared:
    a: Path
    b: Path
    comparison: RecordComparison

    def change(self, label: str, metric: str, topology: str = "") -> Change:
        every = (*self.comparison.overall, *self.comparison.changes)
        return next(c for c in every if (c.label, c.metric.key, c.topology) == (label, metric, topology))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """B: a quarter slower and 0.03 nats worse with DiLoCo; other torch, another core count, other code."""
    base = tmp_path_factory.mktemp("before and after")
    write_grid(base / "a" / "made-up", ("ddp", "diloco"), NETWORKS, (1, 2, 3), steps=40)
    for run in write_grid(base / "b" / "made-up", ("ddp", "diloco"), NETWORKS, (1, 2, 3), steps=40):
        rewrite(run / "environment.json", cores=4, versions={"torch": "2.14.0", "numpy": "2.4.0"})
        if run.name.startswith("diloco"):
            result = json.loads((run / "result.json").read_text())
            seconds = {name: 1.25 * value for name, value in result["seconds"].items()}
            loss = result["final_loss"] + 0.03
            rewrite(run / "result.json", wall_seconds=1.25 * result["wall_seconds"], seconds=seconds, final_loss=loss)
            modules = {"algorithms.methods.diloco": "1", "netsim.traffic": "1"}
            rewrite(run / "environment.json", code="fedcba9876543210", modules=modules)
            other = base / "a" / "made-up" / run.name / "environment.json"
            rewrite(other, modules=modules | {"algorithms.methods.diloco": "0"})
            rewrite(run / "spec.json", compute={"mode": "paced", "step_seconds": 0.125})
    RecordedRun("photon", "photon", NETWORKS[0], steps=40).write(base / "a" / "made-up")
    return Compared(base / "a", base / "b", compare_records(base / "a", base / "b", ("before", "after")))


def test_changes_are_differences_and_ratios_of_pairs(compared: Compared) -> None:
    assert compared.comparison.pairs == 12
    wall, loss = compared.change("diloco", "wall"), compared.change("diloco", "loss", "slow")
    assert exp(wall.estimate.value) == pytest.approx(1.25)
    assert (wall.estimate.n, wall.estimate.groups) == (6, 2)
    assert loss.estimate.value == pytest.approx(0.03)
    assert loss.estimate.low is not None
    assert loss.estimate.low <= 0.03 + 1e-9
    assert loss.detectable == pytest.approx(0.0, abs=1e-9)  # the made-up change is the same in all seeds
    assert compared.change("ddp", "wall").estimate.value == 0.0
    assert {change.metric for change in compared.comparison.overall} == set(METRICS)


def test_times_are_to_a_loss_that_both_sides_reach(compared: Compared) -> None:
    assert compared.change("diloco", "time-to-loss").estimate.value == pytest.approx(0.0)  # the curves are the same


def test_what_only_one_side_has_is_named(compared: Compared) -> None:
    assert compared.comparison.only_a == ("made-up: photon on slow, seed 1",)
    assert compared.comparison.only_b == ()


def test_settings_environment_and_code_are_told_apart(compared: Compared) -> None:
    settings = compared.comparison.settings
    assert [(one.field, one.a, one.b, one.pairs) for one in settings.environment] == [
        ("cores", "2", "4", 12),
        ("versions.torch", "2.13.0", "2.14.0", 12),
    ]
    assert [(one.field, one.a, one.b, one.pairs) for one in settings.settings] == [
        ("compute.step_seconds", "0.1", "0.125", 6)
    ]
    assert [(one.label, one.modules) for one in settings.code] == [("diloco", ("algorithms.methods.diloco",))]


def test_a_threshold_fails_what_crosses_it(compared: Compared) -> None:
    def failed(text: str) -> list[str]:
        return failures(compared.comparison, [threshold_from(text)])

    assert failed("wall>1.2")[0].startswith("diloco: wall time ×1.250 (6 pairs) crosses wall>1.2")
    assert failed("wall>1.3") == ["made-up: photon on slow, seed 1: no valid run in B"]
    assert failed("loss > 0.02")[0].startswith("diloco: final loss")
    assert failed("cu<-0.5") == failed("wall>1.3")
    for text in ("wall", "wall>", "wall>x", "wall=1"):
        with pytest.raises(InputError, match="METRIC>NUMBER"):
            threshold_from(text)
    with pytest.raises(InputError, match="did you mean 'wall'"):
        threshold_from("wal>1")


@pytest.mark.slow
def test_the_page_is_one_offline_file_and_is_replaced(compared: Compared, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        page = write_comparison(compared.comparison, out).read_text()
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert page.count("<table>") == 5
    assert {path.name for path in (out / "figures").iterdir()} >= {"changes.pdf", "changes.csv"}
    assert (out / "tables" / "overall.tex").exists()
    with pytest.raises(InputError, match="not a report"):
        write_comparison(compared.comparison, tmp_path)


def test_the_exit_code_says_whether_a_threshold_is_crossed(compared: Compared) -> None:
    def run(*arguments: str) -> int:
        command = ["compare", str(compared.a), str(compared.b), *arguments]
        return CliRunner().invoke(build("compare"), command, env={"COLUMNS": "200"}).exit_code

    assert run() == 0
    assert run("--fail-if", "wall>1.2") == 1
    answer = CliRunner().invoke(build("compare"), ["compare", str(compared.a), str(compared.b), "--json"])
    document = json.loads(answer.stdout)
    assert document["pairs"] == 12
    assert document["commits"] == ["000000000000", "000000000000"]


def test_records_without_a_pair_are_one_clear_error(compared: Compared, tmp_path: Path) -> None:
    RecordedRun("fomoe", "fomoe", steps=20).write(tmp_path / "made-up")
    with pytest.raises(InputError, match="no valid run of the same suite"):
        compare_records(compared.a, tmp_path, ("a", "b"))
