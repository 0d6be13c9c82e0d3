"""`longhaul bench NAME`: our own benchmarks."""

from __future__ import annotations

from importlib import import_module

import typer

BENCHES = {
    "wan": "harness.bench.wan:bench_wan",
    "collectives": "harness.bench.collectives:bench_collectives",
    "simulator": "harness.bench.simulator:bench_simulator",
    "methods": "harness.bench.methods:bench_methods",
    "overhead": "harness.bench.overhead:bench_overhead",
    "soak": "harness.bench.soak:bench_soak",
}


def _application() -> typer.Typer:
    found = typer.Typer(no_args_is_help=True)
    for name, target in BENCHES.items():
        module, function = target.split(":")
        found.command(name)(getattr(import_module(module), function))
    return found


app = _application()
