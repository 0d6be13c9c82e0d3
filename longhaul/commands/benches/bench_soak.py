"""`longhaul bench soak`: kill processes at random moments; count what is lost or left behind."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.bench.chaos.chaos_report import load_chaos
from harness.bench.endurance import stored_endurance
from harness.bench.malformed_inputs import Tried, try_inputs
from harness.bench.soak import fault_costs, soak
from harness.bench.soak_report import SoakReport, store_soak
from netsim.emulated.network import resolve
from netsim.library import ROOT
from reports.pages.markdown_page import write_page
from reports.pages.reliability_page import reliability_page

DOCS = ROOT / "docs"
CHAOS = DOCS / "chaos.json"
ENDURANCE = DOCS / "endurance.jsonl"
LONGHAUL = (sys.executable, "-m", "longhaul")


def bench_soak(
    kills: Annotated[int, typer.Option(min=0, help="How many SIGKILLs.")] = 50,
    minutes: Annotated[float, typer.Option(min=0.1, help="Stop killing after this time.")] = 20.0,
    substrate: Annotated[str, typer.Option(help="netns, docker or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the choice of victims and moments.")] = 1,
    faults: Annotated[bool, typer.Option(help="Also run every method with declared faults.")] = True,
    inputs: Annotated[int, typer.Option(min=0, help="How many malformed documents to try.")] = 5000,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Write docs/reliability.json and its page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Kill processes at random moments; count what is lost or left behind."""
    console = Console(stderr=True, quiet=as_json, highlight=False)
    substrate = resolve(substrate).substrate
    with tempfile.TemporaryDirectory(prefix="longhaul-soak-") as folder:
        tried = try_inputs(inputs, seed) if inputs else Tried()
        console.print(f"{tried.total} malformed documents: {tried.refused} refused, {len(tried.wrong)} wrongly handled")
        dice = random.Random(seed)
        result = soak(
            LONGHAUL,
            Path(folder),
            kills=kills,
            seconds=minutes * 60,
            substrate=substrate,
            dice=dice,
            report=console.print,
        )
        rows = list(fault_costs(LONGHAUL, Path(folder), substrate)) if faults else []
    report = SoakReport(result, rows, tried)
    passed = report.passed
    costs = [asdict(row) for row in rows]
    if write_docs:
        store_soak(report, DOCS / "reliability.json")
        chaos = load_chaos(CHAOS) if CHAOS.exists() else None
        write_page(reliability_page(report, chaos, stored_endurance(ENDURANCE)), DOCS)
    if as_json:
        print(json.dumps({**asdict(result), "misfortune": costs, "inputs": asdict(tried), "passed": passed}))
    else:
        console.print(
            f"{sum(result.kills.values())} kills over {result.starts} starts: {result.completions} completions, "
            f"{result.same_losses} with the same losses; {len(result.corrupt)} corrupt records, "
            f"{len(result.leaked)} leaks"
        )
        for cost in costs:
            console.print(json.dumps(cost))
    if not passed:
        raise typer.Exit(1)
