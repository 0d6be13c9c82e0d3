"""`longhaul bench soak`: kill whatever there is at random moments, and see that nothing is lost and nothing is left.

A small suite runs once undisturbed. Then it runs again and again while its runner, an agent, a trainer or a container
gets a SIGKILL, and is started again until it completes. After every kill: all records readable, and once `longhaul
clean` has swept, no process, container, network or directory of a dead run. After every completion: the losses of the
undisturbed run, to the bit. A second suite has misfortune declared, the same for every method: what each loses.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml
from rich.console import Console

from harness.bench.malformed_inputs import Tried, try_inputs
from harness.records.run_record import Step, finished_runs, read_lines, read_run
from netsim.emulated.cleanup import sweep
from netsim.emulated.owner import VARIABLE, Owner, boot, owner_of, runtime_root
from netsim.emulated.substrates.capabilities import container_engine
from netsim.errors import InputError, LonghaulError
from netsim.library import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
TARGETS = ("runner", "agent", "trainer", "container")
ATTEMPT_SECONDS = 300.0  # for one start of the suite to end by itself
GONE_SECONDS = 10.0  # for what a killed runner started to end by itself
LINKS = {"up": "200 Mbit", "down": "200 Mbit", "rtt": "10 ms"}
TRAIN = {"batch": 2, "warmup": 4, "evaluation_batches": 2}
QUIET: dict[str, Any] = {
    "name": "soak",
    "model": "tiny",
    "train": {
        "steps": 24,
        "batch": 2,
        "warmup": 4,
        "evaluate_every": 8,
        "evaluation_batches": 2,
        "checkpoint_every": 4,
    },
    "methods": ["ddp", {"method": "diloco", "options": {"sync_every": 6}}],
    "topologies": [{"name": "pair", "defaults": LINKS, "sites": {"a": {}, "b": {}}}],
    "network": {"gate": False, "timeout_seconds": 60},
}
MISFORTUNE: dict[str, Any] = {
    "name": "misfortune",
    "model": "tiny-moe",
    "train": {
        "steps": 120,
        "batch": 2,
        "warmup": 4,
        "evaluate_every": 40,
        "evaluation_batches": 2,
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
class Soak:
    """What was done, and what came of it."""

    substrate: str
    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    completions: int = 0
    same_losses: int = 0
    resumed: int = 0  # cells that went on from a checkpoint
    records_read: int = 0
    corrupt: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    slowest_end_seconds: float = 0.0  # of everything that a killed runner had started, without any sweep
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.corrupt and not self.leaked and 0 < self.completions == self.same_losses


def bench_soak(
    kills: Annotated[int, typer.Option(min=0, help="How many SIGKILLs.")] = 50,
    minutes: Annotated[float, typer.Option(min=0.1, help="Stop killing after so long.")] = 20.0,
    substrate: Annotated[str, typer.Option(help="netns, docker or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of what is killed when.")] = 1,
    misfortune: Annotated[bool, typer.Option(help="Also run every method through declared misfortune.")] = True,
    inputs: Annotated[int, typer.Option(min=0, help="How many spoilt documents to try.")] = 5000,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Write docs/reliability.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Kill everything at random moments; count what is lost."""
    console = Console(stderr=True, quiet=as_json, highlight=False)
    if substrate == "auto":
        substrate = "docker" if container_engine() else "netns"
    with tempfile.TemporaryDirectory(prefix="longhaul-soak-") as folder:
        tried = try_inputs(inputs, seed) if inputs else Tried()
        console.print(f"{tried.total} spoilt documents: {tried.refused} refused, {len(tried.wrong)} wrongly")
        found = soak(Path(folder), kills, minutes * 60, substrate, random.Random(seed), console)
        rows = list(tolls(Path(folder), substrate)) if misfortune else []
    passed = found.passed and not tried.wrong and all(row["valid"] for row in rows)
    document = {**asdict(found), "misfortune": rows, "inputs": asdict(tried), "passed": passed}
    if write_docs:
        from reports.pages.reliability import write_page

        write_page(DOCUMENT, found, rows, tried)
    if as_json:
        print(json.dumps(document))
    else:
        console.print(
            f"{sum(found.kills.values())} kills over {found.starts} starts: {found.completions} completions, "
            f"{found.same_losses} with the same losses; {len(found.corrupt)} corrupt records, {len(found.leaked)} leaks"
        )
        for row in rows:
            console.print(json.dumps(row))
    if not passed:
        raise typer.Exit(1)


def soak(folder: Path, kills: int, seconds: float, substrate: str, dice: random.Random, console: Console) -> Soak:
    """Rounds of the suite, disturbed, until so many kills or seconds are over; the last round completes in peace."""
    suite = folder / "soak.yaml"
    suite.write_text(yaml.safe_dump(QUIET))
    found, began = Soak(substrate), time.monotonic()
    code, length = _undisturbed(suite, folder / "peace", substrate)
    if code != 0:
        raise LonghaulError(f"the undisturbed suite failed (exit {code})")
    wanted, rules = _trajectories(folder / "peace"), _host_rules()
    while sum(found.kills.values()) < kills and time.monotonic() - began < seconds:
        runs = folder / f"round-{found.completions}"
        while True:
            found.starts += 1
            runner = _start(suite, runs, substrate)
            enough = sum(found.kills.values()) >= kills or time.monotonic() - began > seconds
            if not enough:
                _strike(runner, dice, length, substrate, found)
            _wait(runner)
            _inspect(runs, rules, found)
            if runner.returncode == 0:
                break
        found.completions += 1
        found.same_losses += _trajectories(runs) == wanted
        found.resumed += sum("resumed" in mark for run in finished_runs(runs) for mark in _marks(run))
        console.print(f"{sum(found.kills.values())} of {kills} kills, {found.completions} completions")
    found.seconds = time.monotonic() - began
    return found


def tolls(folder: Path, substrate: str) -> Iterator[dict[str, Any]]:
    """What declared misfortune cost each method."""
    suite = folder / "misfortune.yaml"
    suite.write_text(yaml.safe_dump(MISFORTUNE))
    runner = _start(suite, folder / "misfortune", substrate)
    _wait(runner, 4 * ATTEMPT_SECONDS)
    for run in finished_runs(folder / "misfortune"):
        result = read_run(run).result
        fields = ("valid", "why_invalid", "steps", "final_loss", "wall_seconds", "tokens_committed", "tokens_lost")
        costs = ("bytes_repeated", "bytes_caught_up", "detection_seconds", "recovery_seconds", "faults", "generations")
        yield {"method": result.label, **{name: getattr(result, name) for name in (*fields, *costs)}}


def _undisturbed(suite: Path, runs: Path, substrate: str) -> tuple[int, float]:
    began = time.monotonic()
    runner = _start(suite, runs, substrate)
    _wait(runner)
    return runner.returncode, time.monotonic() - began


def _start(suite: Path, runs: Path, substrate: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "longhaul.cli", "run", str(suite), "--runs", str(runs), "--substrate", substrate]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(runner: subprocess.Popen[bytes], seconds: float = ATTEMPT_SECONDS) -> None:
    try:
        runner.wait(seconds)
    except subprocess.TimeoutExpired:
        runner.kill()
        raise LonghaulError(f"a suite did not end within {seconds:.0f} s: it hangs") from None


def _strike(runner: subprocess.Popen[bytes], dice: random.Random, length: float, substrate: str, found: Soak) -> None:
    """One SIGKILL at a random moment of the time that the suite takes; none if the suite is faster."""
    target = dice.choice(TARGETS if substrate == "docker" else TARGETS[:3])
    try:
        runner.wait(dice.uniform(0.5, length))
        return
    except subprocess.TimeoutExpired:
        pass
    owner = Owner(boot(), runner.pid, int(_started(runner.pid)))
    if target == "runner":
        mine = _owned(owner)
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
            if names := _containers(owner):
                subprocess.run(["docker", "kill", dice.choice(names)], capture_output=True, check=False)
                return True
        elif victims := [process for process in _owned(owner) if f"harness.{target}" in _command(process)]:
            with suppress(psutil.NoSuchProcess):
                dice.choice(victims).kill()
                return True
        time.sleep(0.05)
    return False


def _inspect(runs: Path, rules: set[str], found: Soak) -> None:
    """Every record that is there is whole, and after a sweep nothing of a dead run is left.

    rules: the host's packet filter before the soak.
    """
    for run in finished_runs(runs) if runs.is_dir() else []:
        try:
            read_run(run)
            for steps in run.glob("rank-*/steps.jsonl"):
                list(read_lines(steps, Step))
            found.records_read += 1
        except InputError as error:
            found.corrupt.append(str(error))
    sweep(containers=found.substrate == "docker")
    found.leaked += _left_behind(found.substrate, rules)


def _left_behind(substrate: str, rules: set[str]) -> list[str]:
    """Whatever still belongs to a dead owner."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        left = [f"process {process.pid}" for process in _owned(None)]
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


def _owned(owner: Owner | None) -> list[psutil.Process]:
    """The processes of `owner`; None: of any owner that is dead."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            theirs = Owner.parse(process.environ().get(VARIABLE, ""))
            if theirs is not None and (theirs == owner if owner is not None else not theirs.alive):
                found.append(process)
    return found


def _until_gone(processes: list[psutil.Process]) -> float:
    began = time.monotonic()
    psutil.wait_procs(processes, timeout=GONE_SECONDS)
    return time.monotonic() - began


def _containers(owner: Owner) -> list[str]:
    command = ["docker", "ps", "-q", "--filter", f"label=longhaul.owner={owner}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _trajectories(runs: Path) -> dict[str, list[Any]]:
    """By cell: the final loss, and of every worker each step's loss."""
    found = {}
    for run in finished_runs(runs):
        logs = sorted(run.glob("rank-*/steps.jsonl"))
        steps = [[(s.step, s.loss, s.evaluation_loss) for s in read_lines(log, Step)] for log in logs]
        found[run.name] = [read_run(run).result.final_loss, steps]
    return found


def _marks(run: Path) -> list[str]:
    return read_run(run).result.marks
