"""`longhaul bench NAME`: our own benchmarks. Each measures in harness.bench and is shown by reports.pages."""

from __future__ import annotations

import typer

from longhaul.commands.benches.bench_chaos import bench_chaos
from longhaul.commands.benches.bench_endurance import bench_endurance
from longhaul.commands.benches.bench_local import bench_methods, bench_overhead, bench_simulator
from longhaul.commands.benches.bench_network import bench_collectives, bench_wan
from longhaul.commands.benches.bench_page import bench_page
from longhaul.commands.benches.bench_soak import bench_soak

app = typer.Typer(no_args_is_help=True)
for name, command in (
    ("wan", bench_wan),
    ("collectives", bench_collectives),
    ("simulator", bench_simulator),
    ("methods", bench_methods),
    ("overhead", bench_overhead),
    ("page", bench_page),
    ("soak", bench_soak),
    ("chaos", bench_chaos),
    ("endurance", bench_endurance),
):
    app.command(name)(command)
