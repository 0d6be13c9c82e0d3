"""`longhaul run RUN/spec.json` repeats a record, and never writes into the record itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.run import suite_runner
from harness.run.suite_runner import cells_of
from harness.spec.suite import find_suite, load_suite
from longhaul.cli import build
from netsim.emulated.network import Choice
from netsim.errors import InputError


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The spec of the quickstart's third cell, as its run would write it."""
    monkeypatch.setattr(suite_runner, "resolve", lambda *_: Choice("netns", "nfqueue", ""))
    cell = cells_of(load_suite(find_suite("quickstart")), tmp_path / "runs", "netns", "nfqueue")[2]
    cell.directory.mkdir(parents=True)
    (cell.directory / "spec.json").write_text(cell.spec.model_dump_json())
    return cell.directory


def dry_run(*arguments: str) -> list[dict[str, object]]:
    command = ["run", *arguments, "--dry-run", "--json"]
    done = CliRunner().invoke(build("run"), command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cells: list[dict[str, object]] = json.loads(done.stdout)["cells"]
    return cells


@pytest.mark.parametrize("name", ["spec.json", "."])
def test_a_record_is_a_suite_of_one_cell(record: Path, tmp_path: Path, name: str) -> None:
    (cell,) = dry_run(str(record / name), "--runs", str(tmp_path / "again"))
    assert (cell["label"], cell["topology"], cell["seed"]) == ("photon", "transatlantic", 1)
    assert cell["state"] == "to run"


def test_a_replay_into_the_record_is_refused(record: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="into the record itself"):
        CliRunner().invoke(
            build("run"), ["run", str(record), "--runs", str(tmp_path / "runs"), "--dry-run"], catch_exceptions=False
        )
