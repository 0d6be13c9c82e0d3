"""The examples run, and print what is stored where that follows from their inputs alone."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from netsim.library import ROOT

FOLDER = ROOT / "examples"
SUITE = """
name: small
model: tiny
train: {steps: 6, batch: 2, warmup: 2, evaluate_every: 3, evaluation_batches: 1}
compute: {mode: paced, step_seconds: 0.3}
methods: [ddp, {method: diloco, options: {sync_every: 3}}]
topologies: [lan]
sites: 2
network: {substrate: netns, gate: no}
"""


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a suite that was really run, through the public interface."""
    import longhaul

    folder = tmp_path_factory.mktemp("examples")
    (folder / "small.yaml").write_text(SUITE)
    outcomes = longhaul.run_suite(folder / "small.yaml", folder / "runs")
    assert [outcome.cell.spec.label for outcome in outcomes] == ["ddp", "diloco"]
    assert all(outcome.result is not None for outcome in outcomes), [outcome.reason for outcome in outcomes]
    return folder / "runs"


@pytest.mark.parametrize("name", ["projection", "own_plan"])
def test_an_example_prints_what_is_stored(name: str) -> None:
    assert run(f"{name}.py") == (FOLDER / "output" / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.timing
@pytest.mark.parametrize(
    "substrate",
    [pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)],
)
def test_the_network_opened_by_hand_carries_programs(substrate: str) -> None:
    lines = run("own_network.py", substrate).splitlines()
    assert lines[0] == "2 directed pairs probed"
    before, ended, after, _ = lines[-4:]
    for line, expected in ((before, 30), (after, 120)):
        median = re.match(r"median round trip (\d+) ms", line)
        assert median is not None
        assert expected <= int(median[1]) <= expected + 10
    assert ended == "the program in city ended with 0: 42 bytes came"


@pytest.mark.root
def test_all_steps_of_all_runs_are_one_frame(records: Path) -> None:
    lines = run("steps_frame.py", str(records)).splitlines()
    assert lines[0] == "24 rows: 2 methods, 2 workers"  # of 6 steps each
    assert [line.split()[0] for line in lines[-2:]] == ["ddp", "diloco"]
    assert "communication" in lines[1]


@pytest.mark.root
def test_a_figure_of_ones_own_is_drawn(records: Path, tmp_path: Path) -> None:
    printed = run("own_figure.py", str(records), str(tmp_path / "figure.svg"))
    assert printed == "ddp: 2 evaluations\ndiloco: 2 evaluations\n"
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_notebook_prints_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((FOLDER / "first_look.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            assert printed.getvalue() == "".join(line for out in cell["outputs"] for line in out["text"])


def test_every_example_is_listed_in_its_readme() -> None:
    listed = set(re.findall(r"\]\(([\w.]+)\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert listed >= {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".ipynb")}
