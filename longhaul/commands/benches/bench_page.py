"""`longhaul bench page`: how long a large report takes to build, to open and to answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def bench_page(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of five methods on four networks.")] = 5,
    steps: Annotated[int, typer.Option(min=20, help="Steps of each run.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Build a report of made-up runs, and open it and move its slider in headless Chromium where that is installed."""
    from reports.interactive import page_speed  # here, so that other commands do not wait for pandas and matplotlib

    row = page_speed.measure_page(seeds, steps)
    if as_json:
        print(json.dumps({"bench": "page", "passed": row.passed, **asdict(row)}))
    else:
        browser = "not measured: no Chromium with its driver and selenium here"
        if row.answer_ms is not None:
            target = page_speed.MOST_ANSWER_MS
            browser = (
                f"shows its first screen in {row.open_ms:.0f} ms (target {target:g}; an empty page: "
                f"{row.empty_ms:.0f} ms) and answers its slider in {row.answer_ms:.0f} ms (target {target:g})"
            )
        typer.echo(
            f"{row.runs} runs x {row.steps} steps: built in {row.build_seconds:.1f} s, of which "
            f"{row.build_cpu_seconds:.1f} s of processor time (target {page_speed.MOST_BUILD_SECONDS:g}), "
            f"{row.page_bytes / 1e6:.2f} MB (target {page_speed.MOST_PAGE_BYTES / 1e6:g}); {browser}"
        )
    if not row.passed:
        raise typer.Exit(1)
