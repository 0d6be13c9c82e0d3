"""Soak test: SIGKILL processes of a suite at random moments; check that no result is lost and nothing is left behind.

Runs in the command line's process. A small suite runs once undisturbed. Then it runs again and again while its runner,
an agent, a trainer or a container gets a SIGKILL, and is started again until it completes. After every kill: all
records readable, and after `longhaul clean` no process, container, network or directory of a dead run. After every
completion: the losses of the undisturbed run, to the bit. A second suite declares the same faults for every method and
measures what they cost each.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil
import yaml

from harness.bench.run_processes import MODULES, command_line, container_engine, containers_of, owned_processes
from harness.records.layout import RunDirectory
from harness.records.run_record import Step, finished_runs, read_lines, read_run
from netsim.emulated.cleanup import sweep
from netsim.emulated.owner import Owner, owner_of, runtime_root
from netsim.errors import InputError, LonghaulError
from netsim.library import ROOT

TARGETS = ("runner", "agent", "trainer", "container")
ATTEMPT_SECONDS = 300.0  # for one start of the suite to end by itself
GONE_SECONDS = 10.0  # for what a killed runner started to end by itself
LINKS = {"up": "200 Mbit", "down": "200 Mbit", "rtt": "10 ms"}
TRAIN = {"batch": 2, "warmup": 4, "evaluation_sequences": 4}
QUIET: dict[str, Any] = {
    "name": "soak",
    "model": "tiny",
    "train": {
        "steps": 24,
        "batch": 2,
        "warmup": 4,
        "evaluate_every": 8,
        "evaluation_sequences": 4,
        "checkpoint_every": 4,
    },
    "methods": ["ddp", {"method": "diloco", "options": {"sync_every": 6}}],
    "topologies": [{"name": "pair", "defaults": LINKS, "sites": {"a": {}, "b": {}}}],
    "network": {"gate": False, "timeout_seconds": 60},
}
DECLARED_FAULTS: dict[str, Any] = {
    "name": "declared-faults",
    "model": "tiny-moe",
    "train": {
        "steps": 120,
        "batch": 2,
        "warmup": 4,
        "evaluate_every": 40,
        "evaluation_sequences": 4,
        "checkpoint_every": 8,
    },
    "compute": {"mode": "paced", "step_seconds": 0.4},
    "methods": [
        "ddp",
        {"method": "diloco", "options": {"sync_every": 8}},
        {"method": "photon", "options": {"sync_every": 8}},
        {"method": "lordo", "options": {"sync_every": 8}},
        {"method": "fomoe", "options": {"sync_every": 8, "replication": 2}},
    ],
    "topologies": [{"name": "four", "defaults": LINKS, "sites": {name: {} for name in "abcd"}}],
    "network": {"gate": False, "timeout_seconds": 60},
    "faults": [
        {"kind": "crash", "site": "c", "step": 21, "back_after": "2 s"},
        {"kind": "straggle", "site": "b", "step": 30, "until": 37, "factor": 2.0},
        {"kind": "corrupt", "site": "d", "step": 93},
    ],
}


@dataclass
class SoakResult:
    """Kills, restarts, and what was lost or left behind."""

    substrate: str
    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    completions: int = 0
    same_losses: int = 0
    resumed: int = 0  # cells that went on from a checkpoint
    records_read: int = 0
    corrupt: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    swept: int | None = None  # what killed runners had left for the next start to remove; None: not counted
    slowest_end_seconds: float = 0.0  # of everything that a killed runner had started, without any sweep
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.corrupt and not self.leaked and 0 < self.completions == self.same_losses


@dataclass(frozen=True)
class MethodFaultCost:
    """What the declared faults cost one method: seconds, bytes, tokens; one detection and recovery time per fault.

    The fields are those of the run's result; None where the run did not get so far.
    """

    method: str
    valid: bool
    final_loss: float | None
    tokens_committed: int | None
    tokens_lost: int | None
    bytes_repeated: int | None
    bytes_caught_up: int | None
    detection_seconds: list[float] | None
    recovery_seconds: list[float] | None
    why_invalid: list[str] = field(default_factory=list)
    steps: int | None = None
    wall_seconds: float | None = None
    faults: dict[str, int] | None = None
    generations: int | None = None


def soak(
    command: Sequence[str],
    folder: Path,
    *,
    kills: int,
    seconds: float,
    substrate: str,
    dice: random.Random,
    report: Callable[[str], None] = lambda _: None,
) -> SoakResult:
    """Rounds of the suite with kills, until `kills` or `seconds` are reached; the last round completes undisturbed.

    command: the argument list of `longhaul`. LonghaulError if the undisturbed suite fails or a suite hangs.
    """
    suite = folder / "soak.yaml"
    suite.write_text(yaml.safe_dump(QUIET))
    found, began = SoakResult(substrate), time.monotonic()
    code, length = _undisturbed(command, suite, folder / "undisturbed", substrate)
    if code != 0:
        raise LonghaulError(f"the undisturbed suite failed (exit {code})")
    wanted, rules = _trajectories(folder / "undisturbed"), _host_rules()
    while sum(found.kills.values()) < kills and time.monotonic() - began < seconds:
        runs = folder / f"round-{found.completions}"
        while True:
            found.starts += 1
            runner = _start(command, suite, runs, substrate)
            enough = sum(found.kills.values()) >= kills or time.monotonic() - began > seconds
            if not enough:
                _kill(runner, dice, length, substrate, found)
            _wait(runner)
            _inspect(runs, rules, found)
            if runner.returncode == 0:
                break
        found.completions += 1
        found.same_losses += _trajectories(runs) == wanted
        found.resumed += sum("resumed" in mark for run in finished_runs(runs) for mark in _marks(run))
        report(f"{sum(found.kills.values())} of {kills} kills, {found.completions} completions")
    found.seconds = time.monotonic() - began
    return found


def fault_costs(command: Sequence[str], folder: Path, substrate: str) -> Iterator[MethodFaultCost]:
    """One row per method of the suite with declared faults."""
    suite = folder / "declared-faults.yaml"
    suite.write_text(yaml.safe_dump(DECLARED_FAULTS))
    _wait(_start(command, suite, folder / "declared-faults", substrate), 4 * ATTEMPT_SECONDS)
    for run in finished_runs(folder / "declared-faults"):
        result = read_run(run).result
        measured = {one.name: getattr(result, one.name) for one in fields(MethodFaultCost) if one.name != "method"}
        yield MethodFaultCost(method=result.label, **measured)


def _undisturbed(command: Sequence[str], suite: Path, runs: Path, substrate: str) -> tuple[int, float]:
    began = time.monotonic()
    runner = _start(command, suite, runs, substrate)
    _wait(runner)
    return runner.returncode, time.monotonic() - began


def _start(command: Sequence[str], suite: Path, runs: Path, substrate: str) -> subprocess.Popen[bytes]:
    arguments = [*command, "run", str(suite), "--runs", str(runs), "--substrate", substrate]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(runner: subprocess.Popen[bytes], seconds: float = ATTEMPT_SECONDS) -> None:
    try:
        runner.wait(seconds)
    except subprocess.TimeoutExpired:
        runner.kill()
        raise LonghaulError(f"a suite did not end within {seconds:.0f} s: it hangs") from None


def _kill(
    runner: subprocess.Popen[bytes], dice: random.Random, length: float, substrate: str, found: SoakResult
) -> None:
    """One SIGKILL at a random moment of the time that the suite takes; none if the suite is faster."""
    target = dice.choice(TARGETS if substrate == "docker" else TARGETS[:3])
    try:
        runner.wait(dice.uniform(0.5, length))
        return
    except subprocess.TimeoutExpired:
        pass
    owner = Owner.of(runner.pid)
    if owner is None:  # it has ended just now
        return
    if target == "runner":
        mine = owned_processes(owner)
        runner.kill()
        runner.wait()
        found.slowest_end_seconds = max(found.slowest_end_seconds, _until_gone(mine))
    elif not _kill_one(runner, owner, target, dice):
        return
    found.kills[target] = found.kills.get(target, 0) + 1


def _kill_one(runner: subprocess.Popen[bytes], owner: Owner, target: str, dice: random.Random) -> bool:
    """As soon as there is a process or a container of this kind; False if the suite ends before there is one."""
    while runner.poll() is None:
        if target == "container":
            if names := containers_of(owner):
                container_engine("kill", dice.choice(names))
                return True
        elif victims := [process for process in owned_processes(owner) if MODULES[target] in command_line(process)]:
            with suppress(psutil.NoSuchProcess):
                dice.choice(victims).kill()
                return True
        time.sleep(0.05)
    return False


def _inspect(runs: Path, rules: set[str], found: SoakResult) -> None:
    """Every record that is there is whole, and after a sweep nothing of a dead run is left.

    rules: the host's packet filter before the soak.
    """
    for run in finished_runs(runs) if runs.is_dir() else []:
        try:
            read_run(run)
            for worker in RunDirectory(run).workers():
                list(read_lines(worker.steps, Step))
            found.records_read += 1
        except InputError as error:
            found.corrupt.append(str(error))
    removed = sweep(containers=found.substrate == "docker")
    left = (removed.processes, removed.directories, removed.containers, removed.networks)
    found.swept = (found.swept or 0) + sum(map(len, left))
    found.leaked += _left_behind(found.substrate, rules)


def _left_behind(substrate: str, rules: set[str]) -> list[str]:
    """Whatever still belongs to a dead owner."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        left = [f"process {process.pid}" for process in owned_processes(None)]
        if runtime_root().is_dir():
            owners = [(entry.name, owner_of(entry)) for entry in runtime_root().iterdir()]
            left += [f"directory {name}" for name, owner in owners if owner is not None and not owner.alive]
        if substrate == "docker":
            swept = sweep(containers=True)  # what a second sweep still finds, the first has left
            left += [*swept.containers, *swept.networks]
        left += [f"rule {rule}" for rule in sorted(_host_rules() - rules)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _host_rules() -> set[str]:
    """The host's packet filter; a node's own ends with its namespace."""
    if shutil.which("iptables-save") is None:
        return set()
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout.splitlines()
    return {line.partition(" [")[0] for line in saved if not line.startswith("#")}


def _until_gone(processes: list[psutil.Process]) -> float:
    began = time.monotonic()
    psutil.wait_procs(processes, timeout=GONE_SECONDS)
    return time.monotonic() - began


def _trajectories(runs: Path) -> dict[str, list[Any]]:
    """By cell: the final loss, and of every worker each step's loss."""
    found = {}
    for run in finished_runs(runs):
        logs = [worker.steps for worker in RunDirectory(run).workers()]
        steps = [[(s.step, s.loss, s.evaluation_loss) for s in read_lines(log, Step)] for log in logs]
        found[run.name] = [read_run(run).result.final_loss, steps]
    return found


def _marks(run: Path) -> list[str]:
    return read_run(run).result.marks
