"""Time of the cost model's answers, after imports. Runs in the command line's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.cluster.sweep import sweep
from harness.costmodel.projection import Variant, rows_of
from harness.spec.scenario import Scenario, Sweep, load_scenario
from netsim.library import ROOT
from netsim.simulated.closed_form import uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.traffic import Plan, Recurrence, Transfer

FIVE = ("ddp", "diloco", "photon", "lordo", "fomoe O=16")
SITES, ROUNDS, LOCAL_STEPS = 64, 1000, 100
POINTS = 10_000


@dataclass(frozen=True)
class Speed:
    """Seconds that one task took, and the target; `did`: how much work it was."""

    what: str
    seconds: float
    target_seconds: float | None
    passed: bool
    did: str


def measure_simulator(jobs: int) -> list[Speed]:
    """A projection at 104B, flow-level simulations, and a sweep on `jobs` processes."""
    scenario = load_scenario(ROOT / "scenarios" / "fomoe-104b.yaml")
    return [
        _timed("five methods, 104B parameters, 32 sites, a full run", 1.0, partial(five_methods, scenario.where)),
        _timed(f"{SITES} sites, {ROUNDS} rounds, flow by flow", 10.0, partial(flow_level, 0.0)),
        _timed(f"{SITES} sites, 20 rounds that all differ (jitter), flow by flow", None, partial(flow_level, 0.05, 20)),
        _timed(f"a sweep of {POINTS} points on {jobs} processes", 60.0, partial(ten_thousand, scenario, jobs)),
    ]


def five_methods(path: str) -> str:
    """The five methods at their base, from the file on: model, plans, memory, time."""
    scenario = load_scenario(Path(path))
    entries = [entry for entry in scenario.methods if entry.label in FIVE]
    scenario = replace(scenario, methods=tuple(entries), sweep=Sweep())
    rows = [row for entry in entries for row in rows_of(scenario, Variant(entry, scenario.sites), None)]
    assert len(rows) == len(FIVE)
    return f"{len(rows)} rows of {rows[0].steps} steps"


def flow_level(jitter: float, rounds: int = ROUNDS) -> str:
    """An all-reduce of 25 MB per round between sites of 1 Gbit/s, 50 ms apart."""
    transfer = Transfer("pseudo_gradient", 25 * 10**6 // 4, tuple(range(SITES)))
    steps = rounds * LOCAL_STEPS
    plan = Plan(SITES, steps, (Recurrence((transfer,), LOCAL_STEPS, LOCAL_STEPS, steps),))
    outcome = simulate(plan, uniform_topology(SITES, 1e9, 0.05), Compute((0.5,) * SITES, jitter=jitter))
    return f"{outcome.simulated_rounds} rounds simulated, {rounds - outcome.simulated_rounds} advanced in bulk"


def ten_thousand(scenario: Scenario, jobs: int) -> str:
    """Variants of every method at 104B until there are enough points."""
    rates = tuple(float(f"{10 ** (8 + 0.2 * i):.4g}") for i in range(20))
    rtts = tuple(0.001 + 0.02 * i for i in range(10))
    wide = replace(scenario, sweep=Sweep.model_construct(rate=rates, rtt=rtts))
    tasks: list[Variant] = []
    periods = (16, 32, 64, 128, 256)
    for period in periods:
        for entry in scenario.methods:
            if len(tasks) * len(rates) * len(rtts) < POINTS:
                has_period = "sync_every" in entry.options
                options = {**entry.options, "sync_every": period} if has_period else entry.options
                tasks.append(Variant(entry.model_copy(update={"options": options}), scenario.sites))
    rows = [row for part in sweep(partial(rows_of, wide, calibration=None), tasks, jobs=jobs) for row in part]
    assert len(rows) >= POINTS
    return f"{len(rows)} rows of {len(tasks)} plans"


def _timed(what: str, target: float | None, work: Callable[[], str]) -> Speed:
    start = time.perf_counter()
    did = work()
    seconds = time.perf_counter() - start
    return Speed(what, round(seconds, 3), target, target is None or seconds <= target, did)
