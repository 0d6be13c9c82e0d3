"""`longhaul docs`: writes the generated pages of the documentation from stored measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from harness.bench.all_reduce import TARGET_PERCENT, stored_all_reduces
from harness.bench.link_accuracy import stored_links
from harness.bench.rows import stored_host
from harness.bench.soak_report import load_soak
from harness.costmodel.calibration import load_calibration
from harness.costmodel.validation import validate_runs
from harness.records.archive import read_runs
from longhaul.api_page import api_page
from netsim.library import ROOT
from reports.pages.all_reduce_page import collectives_page
from reports.pages.link_accuracy_page import accuracy_page
from reports.pages.markdown_page import MarkdownPage, write_page
from reports.pages.reliability_page import reliability_page
from reports.pages.suite_pages import SUITE_PAGES
from reports.pages.validation_page import validation_page

DATA = ROOT / "docs"


def _accuracy() -> MarkdownPage:
    results = DATA / "accuracy.jsonl"
    return accuracy_page(stored_links(results), stored_host(results))


def _collectives() -> MarkdownPage:
    results = DATA / "collectives.jsonl"
    return collectives_page(stored_all_reduces(results), TARGET_PERCENT, stored_host(results))


def _reliability() -> MarkdownPage:
    return reliability_page(load_soak(DATA / "reliability.json"))


def _validation() -> MarkdownPage:
    calibration = load_calibration(DATA / "calibration.yaml")
    runs = read_runs([DATA / "validation-runs.jsonl", DATA / "fault-runs.jsonl"])
    return validation_page(validate_runs(runs, calibration), calibration)


def _api() -> MarkdownPage:
    return MarkdownPage("api", api_page())


STORED_PAGES: dict[str, Callable[[], MarkdownPage]] = {
    "api": _api,
    "accuracy": _accuracy,
    "collectives": _collectives,
    "reliability": _reliability,
    "validation": _validation,
}


def docs(
    pages: Annotated[
        list[str] | None,
        typer.Argument(help=f"{', '.join(STORED_PAGES)}; with --runs also {', '.join(SUITE_PAGES)}. Default: all."),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder with the runs of each suite, like runs/quickstart.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pages and their figures.")] = DATA,
) -> None:
    """Write the generated pages of the documentation from stored measurements."""
    allowed = [*STORED_PAGES, *(SUITE_PAGES if runs is not None else ())]
    for name in pages or allowed:
        if name in SUITE_PAGES and runs is None:
            raise typer.BadParameter(f"{name} is written from runs; give --runs FOLDER", param_hint="PAGES")
        if name not in allowed:
            raise typer.BadParameter(f"{name!r}; allowed: {', '.join(allowed)}", param_hint="PAGES")
    for name in pages or allowed:
        page = STORED_PAGES[name]() if name in STORED_PAGES else SUITE_PAGES[name](runs or Path())
        typer.echo(str(write_page(page, out)))
