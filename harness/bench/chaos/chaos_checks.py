"""What must hold after each run of `longhaul bench chaos`; its own module says what is checked, and when."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from harness.bench.run_processes import containers_of, networks_of, owned_processes
from harness.records.layout import RunDirectory
from harness.records.logs import read_entries
from harness.records.run_record import finished_runs, read_run
from harness.spec.resolved import ResolvedRun
from harness.worker.checkpoint import load
from harness.worker.checkpoint import steps as checkpoint_steps
from netsim.emulated.owner import Owner, runtime_root
from netsim.emulated.substrates.resource_limits import HIERARCHIES, PREFIX
from netsim.traffic import Plan

VANISH_SECONDS = 2.0  # for the kernel to remove what has ended


def left_behind(owner: Owner, substrate: str) -> list[str]:
    """Everything of the run that is still there, before any sweep."""
    end = time.monotonic() + VANISH_SECONDS
    while True:
        left = [f"process {one.pid} is left" for one in owned_processes(owner)]
        left += [f"control group {path.name} is left" for path in HIERARCHIES.glob(f"*/{PREFIX}{owner}*")]
        left += [f"directory {path.name} is left" for path in runtime_root().glob(f"{owner}.*")]
        if substrate == "docker":
            left += [f"container {name} is left" for name in containers_of(owner)]
            left += [f"network {name} is left" for name in networks_of(owner)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def steps_trained(files: RunDirectory) -> int:
    """How many local steps were computed, whatever became of them, as the workers' step logs say."""
    return sum(
        entry.get("loss") is not None or bool(entry.get("interrupted"))
        for worker in files.workers()
        for log in (worker.steps, worker.lost_steps)
        for entry in read_entries(log)
    )


def inconsistent(runs: Path) -> list[str]:
    """Invariants that a finished run breaks; a run that failed has no result to break them."""
    broken = []
    for folder in finished_runs(runs):
        run, files = read_run(folder), RunDirectory(folder)
        if not run.result.valid:
            broken.append(f"the result is not valid: {'; '.join(run.result.why_invalid)}")
        per_step = run.spec.train.batch * run.spec.model.sequence
        trained = steps_trained(files) * per_step
        counted = (run.result.tokens_committed or 0) + (run.result.tokens_lost or 0)
        if counted != trained:
            broken.append(f"tokens: {counted} committed and lost, {trained} trained")
        sent = sum(entry["payload_bytes"] for worker in files.workers() for entry in read_entries(worker.ledger))
        planned = run.result.planned_payload_bytes_per_worker * run.result.sites
        explained = planned + (run.result.bytes_repeated or 0) + (run.result.bytes_caught_up or 0)
        # Absent sites send less than planned, and nobody more.
        least = 0 if run.result.absences else explained - run.result.sites
        if run.result.bytes_repeated is not None and not least <= sent <= explained + run.result.sites:
            broken.append(f"ledger: {sent} bytes, the plan with what was repeated {explained:.0f}")
        broken += _different(files, ResolvedRun.of(run.spec).plan)
    return broken


def _different(files: RunDirectory, plan: Plan) -> list[str]:
    """Members whose parameters differ at a step after which all are to be the same."""
    by_step: dict[int, list[Any]] = {}
    for worker in files.workers():
        for step in checkpoint_steps(worker.checkpoints):
            if step and plan.at(step):
                by_step.setdefault(step, []).append(load(worker.checkpoints, step).tensors)
    wrong = []
    for step, members in by_step.items():
        first, *others = members
        names = [name for name in first if name.startswith("model.")]
        if any(not first[name].equal(other[name]) for other in others for name in names if name in other):
            wrong.append(f"members differ in the checkpoint of step {step}")
    return wrong
