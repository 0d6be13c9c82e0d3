"""`longhaul docs`: writes the generated pages of the documentation from stored measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from harness.bench.all_reduce import TARGET_PERCENT, hosts_of_rows, stored_all_reduces
from harness.bench.chaos.chaos_report import load_chaos
from harness.bench.endurance import stored_endurance
from harness.bench.link_accuracy import hosts_of_links, stored_links
from harness.bench.link_load import hosts_of_loads, stored_loads, stored_sites
from harness.bench.rows import stored_host
from harness.bench.soak_report import load_soak
from harness.bench.torch_backends import stored_backends
from harness.costmodel.calibration import load_calibration
from harness.costmodel.published import published_cells, published_scenarios
from harness.costmodel.validation import validate_runs
from harness.records.archive import read_runs
from harness.spec.scenario import load_scenario
from longhaul.api_page import api_page
from longhaul.projections import project
from netsim.errors import InputError
from netsim.library import ROOT, shipped
from reports.claim_runs import load_claim_runs, merged, store_claim_runs
from reports.pages.all_reduce_page import collectives_page
from reports.pages.claims_page import claims_page, trained_claims
from reports.pages.link_accuracy_page import accuracy_page
from reports.pages.markdown_page import MarkdownPage, write_page
from reports.pages.planning_examples import EXAMPLES, FOLDER, Example, projection_page
from reports.pages.reliability_page import reliability_page
from reports.pages.suite_pages import SUITE_PAGES, SuitePage
from reports.pages.validation_page import validation_page
from reports.sharing.archive_reader import record_folders

DATA = ROOT / "docs"
CLAIM_RUNS = DATA / "claims-runs.jsonl"


def _accuracy() -> MarkdownPage:
    results = DATA / "accuracy.jsonl"
    return accuracy_page(
        stored_links(results),
        stored_loads(results),
        stored_sites(results),
        hosts_of_links(results),
        hosts_of_loads(results),
    )


def _collectives() -> MarkdownPage:
    results = DATA / "collectives.jsonl"
    rows = stored_all_reduces(results)
    hosts = hosts_of_rows(results)
    return collectives_page(rows, TARGET_PERCENT, stored_host(results), hosts, stored_backends(results))


def _reliability() -> MarkdownPage:
    chaos = DATA / "chaos.json"
    return reliability_page(
        load_soak(DATA / "reliability.json"),
        load_chaos(chaos) if chaos.exists() else None,
        stored_endurance(DATA / "endurance.jsonl"),
    )


def _validation() -> MarkdownPage:
    calibration = load_calibration(DATA / "calibration.yaml")
    runs = read_runs([DATA / f"{kind}-runs.jsonl" for kind in ("validation", "loss", "fault")])
    return validation_page(validate_runs(runs, calibration), calibration)


def _projection() -> MarkdownPage:
    found = [project(shipped("scenarios") / FOLDER / f"{name}.yaml") for name in EXAMPLES]
    examples = [Example(one.scenario, one.base, one.answers) for one in found]
    tables = [load_scenario(path) for path in published_scenarios()]
    return projection_page(examples, [(scenario, published_cells(scenario)) for scenario in tables])


def _claims() -> MarkdownPage:
    return claims_page(load_claim_runs(CLAIM_RUNS))


def _api() -> MarkdownPage:
    return MarkdownPage("api", api_page())


STORED_PAGES: dict[str, Callable[[], MarkdownPage]] = {
    "api": _api,
    "accuracy": _accuracy,
    "claims": _claims,
    "collectives": _collectives,
    "projection": _projection,
    "reliability": _reliability,
    "validation": _validation,
}


def docs(
    pages: Annotated[
        list[str] | None,
        typer.Argument(help=f"{', '.join([*STORED_PAGES, *SUITE_PAGES])}. Default: all whose runs are kept."),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Folder with newer runs of suites, like runs/quickstart, for pages that show a suite's runs."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pages and their figures.")] = DATA,
) -> None:
    """Write the generated pages of the documentation from stored measurements and runs."""
    allowed = [*STORED_PAGES, *SUITE_PAGES]
    for name in pages or ():
        if name not in allowed:
            raise typer.BadParameter(f"{name!r}; allowed: {', '.join(allowed)}", param_hint="PAGES")
    if runs is not None and "claims" in (pages or ()):
        stored = load_claim_runs(CLAIM_RUNS) if CLAIM_RUNS.exists() else None
        store_claim_runs(merged(stored, trained_claims(runs)), CLAIM_RUNS)
    for name in pages or kept_pages():
        page = STORED_PAGES[name]() if name in STORED_PAGES else _suite_page(SUITE_PAGES[name], runs)
        typer.echo(str(write_page(page, out)))


def _archive(suite: str) -> Path:
    return DATA / "runs" / f"{suite}.tar.xz"


def kept_pages() -> list[str]:
    """The pages whose measurements and runs are in docs."""
    stored = [name for name in STORED_PAGES if name != "claims" or CLAIM_RUNS.exists()]
    suites = [name for name, page in SUITE_PAGES.items() if all(_archive(suite).exists() for suite in page.suites)]
    return [*stored, *suites]


def _suite_page(page: SuitePage, runs: Path | None) -> MarkdownPage:
    """From the folder `runs` or, without one, from the archives in docs/runs."""
    if runs is not None:
        return page.write(runs.joinpath)
    for suite in page.suites:
        if not _archive(suite).exists():
            raise InputError(
                str(_archive(suite)), "", "no such file", "the suite's runs: make figures, papers or scaled"
            )
    with record_folders([_archive(suite) for suite in page.suites]) as folders:
        folder_of = {suite: folder / suite for suite, folder in zip(page.suites, folders, strict=True)}
        return page.write(folder_of.__getitem__)
