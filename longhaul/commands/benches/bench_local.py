"""`longhaul bench simulator|methods|overhead`: benchmarks that open no network."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.bench.harness_overhead import measure_overhead
from harness.bench.method_overhead import PERIOD, MethodOverhead, measure_methods
from harness.bench.simulator_speed import Speed, measure_simulator
from harness.spec.presets import find_model

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Model = Annotated[str, typer.Option(help="A model preset.")]


def bench_simulator(
    jobs: Annotated[int, typer.Option(min=1, help="Processes of the sweep.")] = 2, as_json: Json = False
) -> None:
    """Seconds for a projection at 104B, a flow-level simulation, and a sweep of 10,000 points."""
    rows = measure_simulator(jobs)
    if as_json:
        print(json.dumps({"bench": "simulator", "rows": [asdict(row) for row in rows]}))
    else:
        Console(highlight=False).print(_speeds(rows))


def bench_methods(
    model: Model = "tiny",
    batch: Annotated[int, typer.Option(min=1, help="Sequences per step.")] = 8,
    turns: Annotated[int, typer.Option(min=3, help="Turns of every method.")] = 7,
    as_json: Json = False,
) -> None:
    """CPU time of a step of each method with communication off, against AdamW's."""
    rows = measure_methods(find_model(model, "command line"), batch, turns)
    passed = all(row.passed for row in rows)
    document = {"model": model, "batch": batch, "turns": turns, "round_steps": PERIOD, "passed": passed}
    if as_json:
        print(json.dumps({**document, "rows": [asdict(row) for row in rows]}))
    else:
        Console(highlight=False).print(_overheads(rows))
    if not passed:
        raise typer.Exit(1)


def bench_overhead(
    model: Model = "tiny",
    turns: Annotated[int, typer.Option(min=3, help="Turns of each loop.")] = 7,
    as_json: Json = False,
) -> None:
    """Time that the harness adds to a training step over the bare loop."""
    row = measure_overhead(model, turns)
    if as_json:
        print(json.dumps(asdict(row)))
    else:
        low, high = row.overhead_percent_range
        Console(highlight=False).print(
            f"bare loop {row.bare_step_ms:.2f} ms, harness {row.harness_step_ms:.2f} ms per step: "
            f"{row.overhead_percent:+.2f} % (turns from {low:+.2f} % to {high:+.2f} %; target {row.target_percent} %)"
        )
    if not row.passed:
        raise typer.Exit(1)


def _speeds(rows: list[Speed]) -> Table:
    table = Table("task", "seconds", "target", "work done")
    for row in rows:
        target = f"<= {row.target_seconds:g}" if row.target_seconds is not None else ""
        table.add_row(row.what, f"{row.seconds:.2f}", target, row.did)
    return table


def _overheads(rows: list[MethodOverhead]) -> Table:
    table = Table("method", "step ms", "update ms", "update over AdamW", "step over AdamW", "range", "target", "SVD ms")
    for row in rows:
        low, high = row.overhead_percent_range
        table.add_row(
            row.method,
            f"{row.step_ms:.2f}",
            f"{row.update_ms:.2f}",
            f"{row.update_over_adamw_percent:+.1f} %",
            f"{row.overhead_percent:+.1f} %",
            f"{low:+.1f} to {high:+.1f}",
            f"{row.target_percent:.0f} % {'met' if row.passed else 'missed'}",
            f"{row.svd_ms_per_round:.1f}" if row.svd_ms_per_round else "",
        )
    return table
