"""Pages that show suites' runs: quickstart, the papers' comparisons, networks, every method, a 7B model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.spec.suite import find_suite, load_suite
from netsim.errors import InputError
from reports import summary
from reports.figures import curves, methods, network, scaled_figure, speedup, times
from reports.pages.markdown_page import MarkdownPage, picture
from reports.predictions import predict_runs
from reports.records import collect
from reports.scaled_table import scaled_table
from reports.study import Study
from reports.style.drawing import Drawing, report_style

Draw = Callable[[Study], Drawing | None]
FolderOf = Callable[[str], Path]  # of a suite: where its runs are


@dataclass(frozen=True)
class _SuitePart:
    """A suite's table of methods, and the figures that are its point."""

    suite: str
    draws: tuple[Draw, ...]


_PAPERS = (
    _SuitePart("photon", (curves.loss_against_bytes, times.where_time_went)),
    _SuitePart("photon-clients", (methods.aggregation_against_clients,)),
    _SuitePart("lordo", (curves.loss_against_time, methods.lordo_rank, methods.lordo_omega)),
    _SuitePart("fomoe", (methods.replication_frontier, methods.metrics_over_steps)),
)
_CONDITIONS = (
    _SuitePart("wan-sweep", (network.speedup_against_rate, network.utilisation_against_rate, network.fastest_map)),
    _SuitePart("heterogeneous", (curves.loss_against_time, times.where_time_went)),
)
_METHODS = (_SuitePart("all-methods", (curves.loss_against_bytes, times.where_time_went)),)


def quickstart_page(runs: FolderOf) -> MarkdownPage:
    """The README's table and figures."""
    study = suite_study(runs, "quickstart")
    drawings = _drawn(
        study, "quickstart", (speedup.speedup_against_loss, curves.loss_against_time, times.where_time_went)
    )
    text = _head("The quickstart, measured", "quickstart", "suites/quickstart.yaml")
    return MarkdownPage("quickstart", text + summary.methods_table(study).markdown(), drawings)


def papers_page(runs: FolderOf) -> MarkdownPage:
    """The comparisons of three papers at the size of a laptop."""
    return _page_of_parts(
        "papers", "The papers' comparisons, at the size of a laptop", "the four suites below", _PAPERS, runs
    )


def conditions_page(runs: FolderOf) -> MarkdownPage:
    """The five methods over rates and round-trip times, and in a federation of unlike sites."""
    title = "Where each method pays off: rates, round-trip times, unlike sites"
    return _page_of_parts("conditions", title, "the two suites below", _CONDITIONS, runs)


def methods_page(runs: FolderOf) -> MarkdownPage:
    """Every method and baseline once, on one network."""
    return _page_of_parts("all-methods", "Every method, side by side", "suites/all-methods.yaml", _METHODS, runs)


def _page_of_parts(name: str, title: str, source: str, suites: tuple[_SuitePart, ...], runs: FolderOf) -> MarkdownPage:
    parts = [_head(title, name, source)]
    drawings: list[Drawing] = []
    for part in suites:
        study = suite_study(runs, part.suite)
        drawn = _drawn(study, part.suite, part.draws)
        text = f"## `suites/{part.suite}.yaml`\n\n{load_suite(find_suite(part.suite)).description.strip()}\n"
        parts += [text, summary.methods_table(study).markdown(), *map(picture, drawn)]
        drawings += drawn
    return MarkdownPage(name, "\n".join(parts), tuple(drawings))


def scaled_page(runs: FolderOf) -> MarkdownPage:
    """Scaled emulation of a 7B model beside its projection."""
    study = suite_study(runs, "scaled-7b")
    drawing = scaled_figure.measured_beside_projected
    drawn = tuple(replace(one, name="scaled-7b") for one in _drawn(study, "", (drawing,)))
    text = _head("A 7B model in miniature, beside its projection", "scaled-7b", "suites/scaled-7b.yaml")
    return MarkdownPage("scaled-7b", "\n".join([text + scaled_table(study).markdown(), *map(picture, drawn)]), drawn)


@dataclass(frozen=True)
class SuitePage:
    """A page, the suites whose runs it shows, and how it is made of them."""

    suites: tuple[str, ...]
    write: Callable[[FolderOf], MarkdownPage]


SUITE_PAGES = {
    "quickstart": SuitePage(("quickstart",), quickstart_page),
    "papers": SuitePage(tuple(part.suite for part in _PAPERS), papers_page),
    "conditions": SuitePage(tuple(part.suite for part in _CONDITIONS), conditions_page),
    "all-methods": SuitePage(tuple(part.suite for part in _METHODS), methods_page),
    "scaled-7b": SuitePage(("scaled-7b",), scaled_page),
}


def _head(title: str, page: str, source: str) -> str:
    named = f"`{source}`" if source.endswith(".yaml") else source
    return f"# {title}\n\nWritten by `longhaul docs {page}` from the stored runs of {named}, in docs/runs.\n\n"


def suite_study(runs: FolderOf, *suites: str) -> Study:
    folders = [runs(suite) for suite in suites]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(str(folder), "", "no such folder", f"the runs of suites/{folder.name}.yaml")
    collection = collect(folders, None)
    return Study(collection, predict_runs(collection.runs, None))


def _drawn(study: Study, prefix: str, draws: tuple[Draw, ...]) -> tuple[Drawing, ...]:
    with report_style():
        drawn = [draw(study) for draw in draws]
    return tuple(replace(one, name=f"{prefix}-{one.name}".lstrip("-")) for one in drawn if one is not None)
