"""One runner at a time; one bad record is one cell; the first interrupt is the way out; an identity without a host."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.run import suite_runner
from harness.run.cell import Cell
from harness.run.suite_runner import alone, cells_of, describe
from harness.spec.suite import Suite, find_suite, load_suite
from netsim.emulated.network import Choice
from netsim.errors import LonghaulError
from netsim.library import ROOT


@pytest.fixture
def suite() -> Suite:
    return load_suite(find_suite("quickstart"))


def cells_on(
    monkeypatch: pytest.MonkeyPatch, host: str, suite: Suite, runs: Path, substrate: str = "auto"
) -> list[Cell]:
    """As on a host where `auto` is the substrate `host`."""

    def resolve(wanted: str, engine: str) -> Choice:
        return Choice(host if wanted == "auto" else wanted, "nfqueue", "")

    monkeypatch.setattr(suite_runner, "resolve", resolve)
    return cells_of(suite, runs, substrate, "auto")


def test_what_a_host_offers_is_no_part_of_identity(
    monkeypatch: pytest.MonkeyPatch, suite: Suite, tmp_path: Path
) -> None:
    before, after = (cells_on(monkeypatch, host, suite, tmp_path) for host in ("netns", "docker"))
    assert [cell.run_id for cell in before] == [cell.run_id for cell in after]
    assert {cell.spec.network.substrate for cell in after} == {"docker"}
    chosen = cells_on(monkeypatch, "netns", suite, tmp_path, "docker")
    assert not {cell.run_id for cell in chosen} & {cell.run_id for cell in before}


@pytest.mark.parametrize(("first", "second"), [("auto", "netns"), ("netns", "auto")])
def test_a_finished_run_stays_so_if_its_substrate_is_named(
    monkeypatch: pytest.MonkeyPatch, suite: Suite, tmp_path: Path, first: str, second: str
) -> None:
    """Or is not named any more; on another substrate it is another run."""
    done = cells_on(monkeypatch, "netns", suite, tmp_path, first)[0]

    def finished(cell: Cell) -> SimpleNamespace | None:
        return SimpleNamespace(substrate="netns", engine="nfqueue") if cell.run_id == done.run_id else None

    monkeypatch.setattr(Cell, "finished", finished)
    assert cells_on(monkeypatch, "netns", suite, tmp_path, second)[0].run_id == done.run_id
    assert cells_on(monkeypatch, "netns", suite, tmp_path, "docker")[0].run_id != done.run_id


def test_a_second_runner_does_not_describe_the_suite(suite: Suite, tmp_path: Path) -> None:
    describe(suite, tmp_path)
    path = tmp_path / suite.name / "suite.json"
    before = path.read_text()
    with alone(tmp_path / suite.name), pytest.raises(LonghaulError, match="another run is writing"):
        describe(replace(suite, baseline="lordo", description="of the second"), tmp_path)
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["", '{"id": "', "[]", "null", '{"valid": true}'])
def test_a_torn_result_is_a_cell_to_run_again(suite: Suite, tmp_path: Path, text: str) -> None:
    cell = Cell.of(suite.cells[0], tmp_path)
    cell.directory.mkdir(parents=True)
    cell.files.result.write_text(text)
    assert cell.finished() is None


COMMAND = """
import time
from longhaul import cli

def work(prog_name):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("clean", flush=True)

cli.build = lambda wanted, completion: work
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_thirty_interrupts_are_one(number: signal.Signals) -> None:
    command = [sys.executable, "-c", COMMAND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(30):
            process.send_signal(number)
            time.sleep(0.01)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "clean\n", "")


def test_the_description_is_a_whole_document(suite: Suite, tmp_path: Path) -> None:
    describe(suite, tmp_path)
    assert json.loads((tmp_path / suite.name / "suite.json").read_text())["baseline"] == suite.baseline
