"""What becomes of a suite whose runner is interrupted, or whose directory cannot be written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.run_record import finished_runs, read_run
from netsim.emulated.owner import Owner, boot, start_time
from netsim.library import ROOT
from tests.emulated.networks import need, processes_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount and to build namespaces")

SUITE: dict[str, Any] = {
    "name": "small",
    "model": "tiny",
    "train": {"steps": 4, "batch": 2, "warmup": 2, "evaluate_every": 4, "evaluation_sequences": 4},
    "methods": ["ddp"],
    "topologies": [
        {
            "name": "pair",
            "defaults": {"up": "200 Mbit", "down": "200 Mbit", "delay": "1 ms"},
            "sites": {"a": {}, "b": {}},
        }
    ],
    "network": {"gate": False},
}


def command(folder: Path, runs: Path, **changes: Any) -> subprocess.Popen[str]:
    need("netns")
    suite = folder / "small.yaml"
    suite.write_text(yaml.safe_dump({**SUITE, **changes}))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "longhaul",
            "run",
            str(suite),
            "--runs",
            str(runs),
            "--substrate",
            "netns",
            "--json",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control starts what it puts in the background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, complaints = process.communicate(timeout=300)
    assert "Traceback" not in complaints
    return process.returncode, output, complaints


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which tests may fill."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Takes all the room that is left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


@needs_root
def test_a_full_disk_is_named_and_keeps_finished_runs(little_disk: Path, tmp_path: Path) -> None:
    """A full disk is named and leaves finished runs as they are."""
    runs = little_disk / "runs"
    code, _, complaints = ended(command(tmp_path, runs))
    assert code == 0, complaints
    (finished,) = finished_runs(runs)
    before = read_run(finished).result
    fill(little_disk / "filler")
    code, output, complaints = ended(command(tmp_path, runs, seeds=[1, 2]))
    assert code == 1
    assert "No space left on device" in output + complaints
    assert read_run(finished).result == before


@needs_root
def test_a_directory_that_cannot_be_written_is_named(little_disk: Path, tmp_path: Path) -> None:
    runs = little_disk / "runs"
    assert ended(command(tmp_path, runs))[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(little_disk)], check=True)
    code, _, complaints = ended(command(tmp_path, runs, seeds=[2]))
    assert code == 1
    assert "Read-only file system" in complaints
    assert str(runs) in complaints
    (finished,) = finished_runs(runs)
    assert read_run(finished).result.valid


def under_way(folder: Path, runs: Path) -> tuple[subprocess.Popen[str], str]:
    """The runner of a suite without an end, once it trains; and the name by which all that it started is its own."""
    runner = command(folder, runs, train={**SUITE["train"], "steps": 100_000})
    end = time.monotonic() + 120
    while not list(runs.rglob("rank-0/steps.jsonl")) and time.monotonic() < end:
        time.sleep(0.2)
    started = start_time(runner.pid)
    assert started is not None
    return runner, str(Owner(boot(), runner.pid, started))


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_suite_takes_everything_down(tmp_path: Path, number: signal.Signals) -> None:
    runs = tmp_path / "runs"
    runner, owner = under_way(tmp_path, runs)
    assert list(processes_of(owner))
    runner.send_signal(number)
    code, _, complaints = ended(runner)
    assert code == 130
    assert "interrupted" in complaints
    assert list(processes_of(owner)) == []
    assert not list(runs.rglob("result.json"))


@needs_root
def test_a_killed_agent_is_named(tmp_path: Path) -> None:
    runner, owner = under_way(tmp_path, tmp_path / "runs")
    agents = [
        process
        for process in processes_of(owner)
        if b"netsim.emulated.node.agent" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]
    os.kill(agents[0], signal.SIGKILL)
    code, output, _ = ended(runner)
    assert code == 1
    (run,) = json.loads(output)["runs"]
    assert "agent" in run["reason"]
    assert "left no message" not in run["reason"]


@needs_root
def test_a_suite_resumes_after_its_runner_was_killed(tmp_path: Path) -> None:
    """A suite whose runner was killed goes on from its checkpoints."""
    runs = tmp_path / "runs"
    train = {**SUITE["train"], "steps": 60, "evaluate_every": 20, "checkpoint_every": 5}
    runner = command(tmp_path, runs, train=train)
    end = time.monotonic() + 120
    while not list(runs.rglob("rank-1/checkpoints/step-*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.05)
    runner.kill()
    runner.communicate()
    code, output, complaints = ended(command(tmp_path, runs, train=train))
    assert code == 0, complaints
    (run,) = json.loads(output)["runs"]
    result = read_run(Path(run["directory"])).result
    assert result.steps == 60
    assert result.payload_bytes_per_worker == result.planned_payload_bytes_per_worker
    assert any("resumed from step" in mark for mark in result.marks)
