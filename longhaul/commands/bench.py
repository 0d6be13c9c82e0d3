"""`longhaul bench NAME`: our own benchmarks. Each measures in harness.bench and is shown by reports.pages."""

from __future__ import annotations

import typer

from longhaul.commands.bench_local import bench_methods, bench_overhead, bench_simulator
from longhaul.commands.bench_network import bench_collectives, bench_wan
from longhaul.commands.bench_soak import bench_soak

app = typer.Typer(no_args_is_help=True)
for name, command in (
    ("wan", bench_wan),
    ("collectives", bench_collectives),
    ("simulator", bench_simulator),
    ("methods", bench_methods),
    ("overhead", bench_overhead),
    ("soak", bench_soak),
):
    app.command(name)(command)
