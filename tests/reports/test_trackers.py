"""TensorBoard, W&B and trackio get every step of a suite while it runs, and nothing leaves the host."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netsim.errors import InputError
from reports.live.event_files import EventFiles
from reports.live.offline_runs import offline_environment
from reports.live.suite_follower import SuiteFollower
from reports.live.trackers import Trackers, tracked_offline
from tests.reports.made_up import RecordedRun

RUN = "diloco-wan-s1-0123456789"
SECONDS = 60.0  # until a step that was logged is in a tracker's files, at most


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The steps of worker 0 of a run that trains: 25 so far."""
    run = RecordedRun("diloco", steps=40).write(tmp_path / "runs" / "made-up")
    (run / "result.json").unlink()
    path = run / "rank-0" / "steps.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:25]))
    assert run.name == RUN
    return path


def train(log: Path, step: int) -> None:
    with log.open("a") as file:
        file.write(json.dumps({"step": step, "clock": 90.0, "loss": 1.0, "payload_bytes": 1}) + "\n")


def event_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(folder / RUN))
    events.Reload()
    return [scalar.step for scalar in events.Scalars("loss")]


def wandb_steps(folder: Path) -> list[int]:
    """As they stand in the file: W&B has no reader of it in Python."""
    files = list(folder.glob(f"wandb/offline-run-*-{RUN}/run-{RUN}.wandb"))
    assert len(files) <= 1
    found = re.findall(rb"\x05_step\x82\x01.(\d+)", files[0].read_bytes()) if files else []
    return sorted({int(step) for step in found})


def trackio_steps(folder: Path) -> list[int]:
    path = folder / "made-up.db"
    if not path.exists():
        return []
    database = sqlite3.connect(path)
    try:
        asked = "select step from metrics where run_id = ? order by step"
        return [step for (step,) in database.execute(asked, (RUN,))]
    except sqlite3.OperationalError:  # its tables are being made
        return []
    finally:
        database.close()


@pytest.mark.slow
def test_event_files_grow_while_a_suite_runs(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    follower, out = SuiteFollower(log.parents[2]), tmp_path / "events"
    note = out / RUN / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    with EventFiles(out) as files:
        for count in (25, 26):
            if count == 26:
                train(log, count)
            follower.read()
            files.write(follower.runs())
            assert event_steps(out) == list(range(1, count + 1))
    with EventFiles(out) as files:  # a second start
        files.write(follower.runs())
    assert event_steps(out) == list(range(1, 27))
    assert note.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(("package", "steps"), [("wandb", wandb_steps), ("trackio", trackio_steps)])
def test_offline_runs_grow_while_a_suite_runs(
    package: str, steps: Callable[[Path], list[int]], log: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    out = tmp_path / "out"
    with tracked_offline(package, out, log.parents[2]):
        deadline = time.monotonic() + SECONDS
        while len(steps(out)) < 25 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert steps(out) == list(range(1, 26))
        train(log, 26)
    assert steps(out) == list(range(1, 27))  # the last are written at the end
    with tracked_offline(package, out, log.parents[2]):
        pass
    assert steps(out) == list(range(1, 27))  # a second start writes none twice


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_one_clear_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    expected = rf"--{package}: found no package {package} .* pip install 'longhaul-bench\[{package}\]'"
    with pytest.raises(InputError, match=expected):
        Trackers(**{package: Path("out")})


def test_a_missing_package_ends_a_run_before_it_begins(tmp_path: Path) -> None:
    code = "import sys; sys.modules['wandb'] = None; from longhaul.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "quickstart", "--runs", "runs", "--wandb", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert "longhaul-bench[wandb]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_setting_of_the_user_leads_runs_elsewhere() -> None:
    users = {"PATH": "/bin", "WANDB_MODE": "online", "WANDB_API_KEY": "k", "TRACKIO_SPACE_ID": "a/b", "HF_TOKEN": "t"}
    found = offline_environment(users, Path("/out"), Path("/cache"))
    assert (found["PATH"], found["WANDB_MODE"], found["HF_HUB_OFFLINE"]) == ("/bin", "offline", "1")
    assert not {"WANDB_API_KEY", "TRACKIO_SPACE_ID", "HF_TOKEN"} & set(found)
