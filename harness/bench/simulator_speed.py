"""Time of the cost model's answers, after imports. Runs in the command line's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from algorithms.method import find
from harness.cluster.sweep import sweep
from harness.costmodel.projection import Variant
from harness.costmodel.projection_rows import SIMULATED_CHUNKING, SIMULATED_TRANSFERS, rows_of
from harness.spec.presets import find_model
from harness.spec.scenario import Scenario, Sweep, load_scenario
from netsim.library import ROOT
from netsim.simulated.closed_form import load_of, times, uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import simulate
from netsim.topology import Link, Site, Topology, Transport
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

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
        _timed("8 sites, 100 rounds that all differ (jitter)", 1.0, partial(flow_level, 0.05, 100, 8)),
        _timed("a ring of 64 sites, 10 rounds, flow by flow", 1.0, partial(flow_level, 0.0, 10, 64, Algorithm.RING)),
        _timed("a ring of 256 sites, 10 rounds, flow by flow", 10.0, partial(flow_level, 0.0, 10, 256, Algorithm.RING)),
        _timed("10,000 sites, closed form", 1.0, partial(many_sites, 10_000)),
        _timed("DDP of 7B on 30 unlike sites, flow by flow", 5.0, unlike_sites),
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


def flow_level(jitter: float, rounds: int = ROUNDS, sites: int = SITES, algorithm: Algorithm = Algorithm.AUTO) -> str:
    """An all-reduce of 25 MB per round between sites of 1 Gbit/s, 50 ms apart."""
    plan = _averages(sites, rounds, algorithm)
    outcome = simulate(plan, uniform_topology(sites, 1e9, 0.05), Compute((0.5,) * sites, jitter=jitter))
    return f"{outcome.simulated_rounds} rounds simulated, {rounds - outcome.simulated_rounds} advanced in bulk"


def _averages(sites: int, rounds: int, algorithm: Algorithm = Algorithm.AUTO) -> Plan:
    transfer = Transfer("pseudo_gradient", 25 * 10**6 // 4, tuple(range(sites)), algorithm=algorithm)
    steps = rounds * LOCAL_STEPS
    return Plan(sites, steps, (Recurrence((transfer,), LOCAL_STEPS, LOCAL_STEPS, steps),))


def many_sites(sites: int) -> str:
    """The same all-reduce, a thousand rounds, without a simulation."""
    load = load_of(_averages(sites, ROUNDS))
    seconds = float(times(load, 0.5, 1e9, 0.05).total)
    return f"{load.syncs} rounds, {seconds / load.steps:.3f} s a step"


def unlike_sites(sites: int = 30, steps: int = 1000) -> str:
    """Uplinks of 1 to 5 Gbit/s, downlinks of 2 to 6, 10 to 88 ms apart."""
    places = tuple(Site(f"site-{i}", (1 + i % 5) * 1e9, (2 + i % 3 * 2) * 1e9) for i in range(sites))
    links = tuple(
        Link(a.name, b.name, 0.005 + 0.001 * ((7 * i + 3 * j) % 40))
        for i, a in enumerate(places)
        for j, b in enumerate(places)
        if a is not b
    )
    plan = find("ddp", {}, "bench").plan(find_model("photon-7b", "bench"), sites, steps).merged(SIMULATED_TRANSFERS)
    link_model = LinkModel(chunking=SIMULATED_CHUNKING)
    topology = Topology("unlike", places, links, Transport())
    outcome = simulate(plan, topology, Compute((1.0,) * sites), link_model=link_model)
    return f"{outcome.simulated_rounds} of {steps} steps simulated"


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
