"""What `run` prints: one line per event where output is piped, and for a failure where to look."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.run_record import read_run
from harness.run import suite_runner
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome, cells_of
from harness.spec.suite import find_suite, load_suite
from longhaul import progress
from longhaul.progress import RunProgress
from netsim.emulated.network import Choice
from tests.reports.made_up import RecordedRun


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cell:
    monkeypatch.setattr(suite_runner, "resolve", lambda *_: Choice("netns", "nfqueue", ""))
    return cells_of(load_suite(find_suite("quickstart")), tmp_path, "netns", "auto")[0]


def test_a_failure_says_where_and_which_log(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    (cell.directory / "rank-1").mkdir(parents=True)
    (cell.directory / "rank-1" / "log.txt").write_text("starting\n\x1b[31mout of memory\n")
    with RunProgress(1) as shown:
        shown.done(CellOutcome(cell, "failed", reason="trainer 1 ended with 3"))
    text = capsys.readouterr().err
    site = list(cell.spec.topology["sites"])[1]
    assert "trainer 1 ended with 3" in text
    assert f"{site}, step 0: " in text
    assert "out of memory" in text
    assert "\x1b" not in text
    assert str(cell.directory / "rank-1" / "log.txt") in text
    assert f"longhaul show {cell.directory}" in text


def test_a_piped_run_says_now_and_then_how_it_goes(
    cell: Cell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PIPED_SECONDS", 0.05)
    with RunProgress(1) as shown:
        shown.stage(cell, "training", cell.directory)
        while capsys.readouterr().err.count("training") < 1:
            pass


def test_a_pipe_has_one_line_for_a_cell_that_begins(
    cell: Cell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its title is."""
    monkeypatch.setenv("COLUMNS", "20")
    with RunProgress(1) as shown:
        shown.stage(cell, "opening the network", cell.directory)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_caveats_are_printed_when_a_cell_is_done(
    cell: Cell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = RecordedRun(changes={"marks": ["17 of 400 paced slots were too short"]}).write(tmp_path / "made-up")
    with RunProgress(1) as shown:
        shown.done(CellOutcome(cell, "complete", read_run(run).result))
    assert "17 of 400 paced slots were too short" in capsys.readouterr().err
