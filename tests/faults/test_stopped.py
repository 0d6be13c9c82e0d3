"""Processes that stop without dying (SIGSTOP) end the run with a message within a stated time."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.elastic.fault_injector import CONTINUE
from harness.run import stall_watch, worker_group
from harness.run.failure import how_it_ended
from netsim.bounded_call import BoundedCaller
from netsim.errors import LonghaulError
from tests.faults.loopback import LocalNetwork, run_through, spec_of

FAULT = {"kind": "straggle", "site": "a", "step": 9000, "factor": 1.5}  # declared, never reached


def until_training(network: LocalNetwork, directory: Path) -> None:
    end = time.monotonic() + 100
    while not all((directory / f"rank-{rank}" / "steps.jsonl").exists() for rank in range(len(network.nodes))):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "declared"), [("ddp", False), ("ddp", True), ("single", False)])
def test_a_stopped_trainer_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, declared: bool
) -> None:
    """Of one site, too, whose trainer nobody else waits for."""
    for module in (stall_watch, worker_group):
        monkeypatch.setattr(module, "STALL_SECONDS", 4.0)
    sites = 1 if method == "single" else 2
    faults = [FAULT] if declared else []
    spec = spec_of(tmp_path, method, sites=sites, faults=faults, train={"steps": 10_000})
    began = 0.0

    def stop(network: LocalNetwork) -> None:
        nonlocal began
        until_training(network, tmp_path / "run")
        network.nodes[0].started[-1].send_signal(signal.SIGSTOP)
        began = time.monotonic()

    with pytest.raises(LonghaulError, match="rank 0 has shown no sign of life"):
        run_through(spec, tmp_path / "run", tmp_path / "cache", stop)
    assert time.monotonic() - began < 4 + 5


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(300)
def test_a_stopped_coordinator_ends_the_run(tmp_path: Path) -> None:
    """A store call is given up after network.timeout_seconds."""
    timeout = 4.0
    spec = spec_of(tmp_path, "ddp", faults=[FAULT], train={"steps": 10_000}, network={"timeout_seconds": timeout})
    began = 0.0

    def stop(network: LocalNetwork) -> None:
        nonlocal began
        until_training(network, tmp_path / "run")
        network.nodes[0].started[0].send_signal(signal.SIGSTOP)
        began = time.monotonic()

    with pytest.raises(LonghaulError, match="the coordinator .* did not answer within 4 s"):
        run_through(spec, tmp_path / "run", tmp_path / "cache", stop)
    assert time.monotonic() - began < timeout + 10


def test_a_call_that_never_returns_is_given_up() -> None:
    caller = BoundedCaller("the store", 0.2)
    assert caller.run(lambda: 7) == 7
    with pytest.raises(TimeoutError, match="the store did not answer within 0.2 s"):
        caller.run(lambda: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        caller.run(lambda: 8)
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("seconds", ["0", "0.001", "0.3"])
def test_a_pause_ends_however_short_it_is(seconds: str) -> None:
    """A continue signal that comes before the stop would leave the process stopped for ever."""
    program = f"""
import os, signal, subprocess, time
subprocess.Popen(["/bin/sh", "-c", {CONTINUE!r}, "sh", {seconds!r}, str(os.getpid())])
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGSTOP)
print("continued")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "continued\n"


def test_it_is_said_how_a_program_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that died of a full disk could not say so itself."""
    log = tmp_path / "log.txt"
    assert how_it_ended(-signal.SIGKILL, ["step 3"], log) == "was killed by SIGKILL"
    assert how_it_ended(1, ["step 3", "no such file"], log) == "ended (exit 1): no such file"
    assert how_it_ended(1, [], log) == "ended (exit 1): it left no message"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert how_it_ended(1, [], log).endswith(f"no space left on device: {log}")


def test_only_what_stays_stopped_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall_watch, "STALL_SECONDS", 0.05)
    programs = stall_watch.StoppedPrograms()
    for stopped in (True, False, True):  # a moment's stop starts anew
        programs.check("the coordinator", stopped)
        time.sleep(0.03)
    time.sleep(0.05)
    with pytest.raises(LonghaulError, match="the coordinator has been stopped for 0.05 s"):
        programs.check("the coordinator", stopped=True)
