"""`longhaul bench chaos`: one random disturbance per run; how long until the outcome, and what held."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.bench.chaos.chaos_plan import ChaosOutcome, ChaosSchedule, draw, shrink
from harness.bench.chaos.chaos_report import ChaosReport, load_chaos, store_chaos
from harness.bench.chaos.chaos_runs import Chaos, abilities
from longhaul.commands.benches.bench_soak import CHAOS, LONGHAUL
from netsim.emulated.network import resolve
from netsim.errors import InputError


def bench_chaos(
    injections: Annotated[int, typer.Option(min=1, help="How many on this substrate, with those in --state.")] = 200,
    minutes: Annotated[float, typer.Option(min=0.1, help="Start none after this time; the next call goes on.")] = 60.0,
    substrate: Annotated[str, typer.Option(help="netns, docker or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 1,
    only: Annotated[int | None, typer.Option(min=0, help="Replay this injection of the seed, and no other.")] = None,
    state: Annotated[Path, typer.Option(help="What has been done, to go on from; one JSON document.")] = CHAOS,
    at_once: Annotated[int, typer.Option(min=1, help="How many side by side; more than one needs root.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Disturb runs at random; measure the time to the outcome, check what must hold after each."""
    console = Console(stderr=True, quiet=as_json, highlight=False)
    substrate = resolve(substrate).substrate
    if at_once > 1 and os.geteuid() != 0:
        raise InputError("command line", "--at-once", at_once, "1 without root: runs could not be told apart")
    report = load_chaos(state) if state.exists() else ChaosReport(seed, abilities())
    if only is None and report.seed != seed:
        report = ChaosReport(seed, abilities())
    report = replace(report, at_once=max(at_once, report.at_once))
    done = {outcome.index for outcome in report.outcomes if outcome.substrate == substrate}
    wanted = [only] if only is not None else [index for index in range(injections) if index not in done]
    end = time.monotonic() + 60 * minutes
    failed: list[ChaosSchedule] = []
    with tempfile.TemporaryDirectory(prefix="longhaul-chaos-") as folder:
        Path(folder).chmod(0o755)
        chaos = Chaos(LONGHAUL, Path(folder), report.undisturbed)
        schedules = (draw(seed, index, substrate, report.abilities) for index in wanted)
        for schedule, outcome in _side_by_side(chaos, schedules, at_once, end):
            console.print(said(outcome), markup=False, soft_wrap=True)
            if only is None:
                report = replace(report.adding(outcome), undisturbed=chaos.undisturbed)
                store_chaos(report, state)
            if not outcome.passed:
                failed.append(schedule)
        for schedule in failed:
            if time.monotonic() < end:
                _print_smallest(console, chaos, schedule)
    counted = [outcome for outcome in report.outcomes if outcome.substrate == substrate]
    if as_json:
        print(json.dumps({"seed": seed, "substrate": substrate, "outcomes": [asdict(one) for one in counted]}))
    else:
        worst = max((one.ratio for one in counted), default=0.0)
        console.print(f"{len(counted)} of {injections} injections on {substrate}, largest ratio {worst:.2f}")
    if failed:
        raise typer.Exit(1)


def _side_by_side(
    chaos: Chaos, schedules: Iterable[ChaosSchedule], at_once: int, end: float
) -> Iterator[tuple[ChaosSchedule, ChaosOutcome]]:
    """Each outcome as it comes. end: after which none is started, monotonic."""
    todo, running = iter(schedules), dict[Future[ChaosOutcome], ChaosSchedule]()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while True:
                while len(running) < at_once and time.monotonic() < end and (schedule := next(todo, None)) is not None:
                    running[pool.submit(chaos.carry_out, schedule)] = schedule
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BaseException:
            chaos.end()
            raise


def said(outcome: ChaosOutcome) -> str:
    """One line about an outcome."""
    what = f"{outcome.index}: {outcome.process}, {outcome.disturbance}, {outcome.stage}, {outcome.method}"
    kept = "; ".join(outcome.broken) or "every invariant held"
    return f"{what}: {outcome.state} after {outcome.seconds:.1f} of {outcome.bound:.0f} s; {kept}"


def _print_smallest(console: Console, chaos: Chaos, schedule: ChaosSchedule) -> None:
    smallest = shrink(schedule, lambda candidate: not chaos.carry_out(candidate).passed)
    console.print(f"the smallest schedule found that still fails: {json.dumps(asdict(smallest))}")
