"""Chaos: one disturbance per run, drawn from a seed; how long until the outcome, and what must hold after each.

Runs in the command line's process, over real runners, several side by side if asked to. Four invariants are checked
after each run, before any sweep: tokens committed and lost are those trained; the ledger's bytes are the plan's, at
most where a site was absent; members that kept a checkpoint of the same synchronised step have the same parameters, to
the bit; and nothing is left on the host. Every site holds every expert (`OPTIONS`), so experts are compared like all
other parameters. However a run is left, its runner is ended.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from harness.bench.chaos.chaos_checks import inconsistent, left_behind
from harness.bench.chaos.chaos_plan import (
    SLOW_SECONDS,
    TIMEOUT_SECONDS,
    ChaosOutcome,
    ChaosSchedule,
    Injection,
    bound_seconds,
)
from harness.bench.chaos.chaos_runner import DisturbedRunner
from harness.bench.run_processes import container_engine, containers_of, numbers_of, owned_processes
from harness.bench.soak import LINKS, TRAIN
from netsim.emulated.owner import Owner
from netsim.errors import LonghaulError
from netsim.library import ROOT
from netsim.text_files import last_words

STEPS, SYNC, STEP_SECONDS = 26, 4, 0.15
CHECKPOINT_EVERY = {"lordo": SYNC + 1}  # of which one of the last two follows a synchronisation; others: SYNC
MODEL: dict[str, Any] = {  # as small as models are: the runs are about processes
    "kind": "moe",
    "layers": 2,
    "width": 32,
    "heads": 2,
    "experts": 4,
    "top_k": 2,
    "expert_width": 32,
    "vocabulary": 256,
    "sequence": 32,
}
LOOK_SECONDS = 0.25  # between two looks at the host's processes
LIMIT_SECONDS = 400.0  # above every bound: a run that takes longer hangs
CLOCK_STEP_SECONDS = 3600
OPTIONS: dict[str, dict[str, Any]] = {"ddp": {}, "fomoe": {"sync_every": SYNC, "replication": 3}}
FACTS: dict[str, dict[str, Any]] = {
    "crash": {"back_after": "1 s"},
    "pause": {"lasts": "1 s"},
    "straggle": {"until": 16, "factor": 2.0},
    "corrupt": {},
    "short": {},
}


def abilities() -> list[str]:
    """Disturbances beyond signals that this host can do: a disk of its own for the run, a clock of its own."""
    found = ["disk full"] if os.geteuid() == 0 else []
    return [*found, "clock step"] if clock_library() is not None else found


def clock_library() -> Path | None:
    """The library by which a run has a clock of its own, where Python's package libfaketime is installed.

    Debian's libfaketime 0.9.10 is of no use: with it, Python's time.sleep fails where the monotonic clock is left alone
    (its issue 426).
    """
    package = importlib.util.find_spec("libfaketime")
    folders = package.submodule_search_locations if package else None
    return next((found for folder in folders or () for found in sorted(Path(folder).rglob("libfaketime.so.1"))), None)


class Chaos:
    """Carries schedules out in `folder`, several at a time if it is called so.

    command: the argument list of `longhaul`. undisturbed: seconds of an undisturbed run by substrate and method, where
    known.
    """

    def __init__(self, command: Sequence[str], folder: Path, undisturbed: dict[str, float]) -> None:
        self._command, self._folder, self.undisturbed = command, folder, undisturbed
        self._number = itertools.count(1)
        self._measuring: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._running: set[DisturbedRunner] = set()
        self._ended = False

    def carry_out(self, schedule: ChaosSchedule) -> ChaosOutcome:
        """LonghaulError if the undisturbed run of the same method fails."""
        key = f"{schedule.substrate}/{schedule.method}"
        with self._measuring[key]:
            if key not in self.undisturbed:
                self._measure(schedule, key)
        outcome = self._disturbed(schedule, bound_seconds(schedule, self.undisturbed[key]))
        if outcome.ratio > 1 and not outcome.broken:
            with self._measuring[key]:  # a host may have become slower: such a run is compared with one of its time
                self._measure(schedule, key)
            outcome = replace(outcome, bound=round(bound_seconds(schedule, self.undisturbed[key]), 3))
        return outcome

    def end(self) -> None:
        """Ends every run that is under way; calls of `carry_out` then fail."""
        self._ended = True
        for runner in list(self._running):
            runner.end()

    def _measure(self, schedule: ChaosSchedule, key: str) -> None:
        began = time.monotonic()
        outcome = self._disturbed(replace(schedule, injections=()), LIMIT_SECONDS)
        if outcome.state != "complete" or outcome.broken:
            raise LonghaulError(f"{key} undisturbed: {outcome.state}, {outcome.reason}, {outcome.broken}")
        self.undisturbed[key] = max(time.monotonic() - began, self.undisturbed.get(key, 0.0))

    def _disturbed(self, schedule: ChaosSchedule, bound: float) -> ChaosOutcome:
        place = self._folder / f"{schedule.index}-{next(self._number)}"
        (place / "runs").mkdir(parents=True)
        disk = any(one.disturbance == "disk full" for one in schedule.injections)
        if disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(place / "runs")], check=True)
        try:
            return self._watched(schedule, bound, place)
        finally:
            if disk:
                subprocess.run(["umount", "-l", str(place / "runs")], check=False)
            shutil.rmtree(place, ignore_errors=True)

    def _watched(self, schedule: ChaosSchedule, bound: float, place: Path) -> ChaosOutcome:
        runs, clock = place / "runs", place / "clock"
        suite = place / "suite.yaml"
        suite.write_text(yaml.safe_dump(suite_of(schedule)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if any(one.disturbance == "clock step" for one in schedule.injections):
            clock.write_text("+0")
            environment |= {
                "LD_PRELOAD": str(clock_library()),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        if self._ended:
            raise LonghaulError("no run is started any more")
        arguments = [*self._command, "run", str(suite), "--runs", str(runs), "--substrate", schedule.substrate]
        runner = DisturbedRunner([*arguments, "--json"], environment, place, schedule.substrate)
        self._running.add(runner)
        try:
            return self._outcome(schedule, bound, place, runner)
        finally:
            runner.end()
            self._running.discard(runner)

    def _outcome(self, schedule: ChaosSchedule, bound: float, place: Path, runner: DisturbedRunner) -> ChaosOutcome:
        runs, clock, owner = place / "runs", place / "clock", runner.owner
        reached = True
        for one in schedule.injections:
            reached = self._inject(one, runner, runs, clock) and reached
        struck = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            runner.wait(LIMIT_SECONDS)
            psutil.wait_procs(owned_processes(owner), timeout=bound)
        seconds = time.monotonic() - struck
        state, reason = _ending(place, runner.returncode)
        broken = [*left_behind(owner, schedule.substrate), *inconsistent(runs)]
        # A slow helper of the network may be taken for a stopped one: then the run fails, with its name.
        slow = any(one.disturbance == "slow" for one in schedule.injections)
        if reached and schedule.survives and not slow and state != "complete":
            broken.append(f"a run that declares its faults is {state}: {reason}")
        one = schedule.injections[0] if schedule.injections else Injection("none", "none", "none", 0.0)
        return ChaosOutcome(
            schedule.index,
            schedule.substrate,
            schedule.method,
            one.process,
            one.disturbance,
            one.stage,
            state if reached else "not reached",
            round(seconds, 3),
            round(bound, 3),
            broken,
            reason,
        )

    def _inject(self, one: Injection, runner: DisturbedRunner, runs: Path, clock: Path) -> bool:
        """Whether the stage came and there was something to disturb."""
        owner = runner.owner
        if one.declared:
            return True
        if not _until(lambda: _reached(one.stage, owner, runs), runner):
            return False
        time.sleep(one.delay)
        if one.disturbance == "clock step":
            clock.write_text(f"+{CLOCK_STEP_SECONDS}")
            return runner.poll() is None
        if one.disturbance == "disk full":
            with suppress(OSError), (runs / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
            return runner.poll() is None
        if one.process == "container":
            names = containers_of(owner)
            return container_engine("kill", *names[-1:]).returncode == 0
        victims = [runner.pid] if one.process == "runner" else []
        if one.process != "runner":
            _until(lambda: bool(numbers_of(one.process, owner)), runner)
            victims = numbers_of(one.process, owner)
        if not victims or runner.poll() is not None:
            return False
        slow = one.disturbance == "slow"
        try:
            os.kill(victims[-1], signal.SIGSTOP if slow else getattr(signal, one.disturbance))
        except ProcessLookupError:
            return False
        if slow:
            time.sleep(SLOW_SECONDS)
            with suppress(ProcessLookupError):  # the run may have ended it meanwhile, as stopped
                os.kill(victims[-1], signal.SIGCONT)
        return True


def suite_of(schedule: ChaosSchedule) -> dict[str, Any]:
    """One run; with a declared fault that never comes where none is drawn, so that there is a coordinator."""
    faults: list[dict[str, Any]] = []
    timeline: list[dict[str, Any]] = []
    for one in schedule.injections:
        if one.disturbance == "partition":
            timeline = [{"at": "1 s", "partition": {"groups": [["a", "b"], ["c"]]}}, {"at": "3 s", "heal": "all"}]
        elif one.declared:
            step = 9 + int(one.delay * 4)
            faults.append({"kind": one.disturbance, "site": "c", "step": step, **FACTS[one.disturbance]})
    if not faults and not timeline:
        faults.append({"kind": "straggle", "site": "b", "step": STEPS, "factor": 1.01})
    options = OPTIONS.get(schedule.method, {"sync_every": SYNC})
    every = CHECKPOINT_EVERY.get(schedule.method, SYNC)
    topology: dict[str, Any] = {"name": "three", "defaults": LINKS, "sites": {name: {} for name in "abc"}}
    if timeline:
        topology["timeline"] = timeline
    return {
        "name": "chaos",
        "model": MODEL,
        "train": {
            **TRAIN,
            "steps": STEPS,
            "evaluate_every": STEPS,
            "checkpoint_every": every,
        },
        "compute": {"mode": "paced", "step_seconds": STEP_SECONDS},
        "methods": [{"method": schedule.method, "options": options}],
        "topologies": [topology],
        "network": {"gate": False, "timeout_seconds": TIMEOUT_SECONDS},
        "faults": faults,
    }


def _until(condition: Callable[[], bool], runner: DisturbedRunner) -> bool:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if runner.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _reached(stage: str, owner: Owner, runs: Path) -> bool:
    if stage == "start":
        return bool(numbers_of("agent", owner))
    return any(path.stat().st_size for path in runs.glob("*/*/rank-*/steps.jsonl"))


def _ending(place: Path, code: int | None) -> tuple[str, str]:
    """State and reason of the run, as its runner said."""
    if code is None:
        return "hangs", ""
    with suppress(ValueError, KeyError, IndexError):
        run = json.loads((place / "said").read_text(encoding="utf-8"))["runs"][0]
        return str(run["state"]), str(run.get("reason") or "")
    return ("killed" if code < 0 else f"exit {code}"), last_words(place / "complaints", 1)
