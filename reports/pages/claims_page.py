"""The page that holds the papers' claims against runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from harness.spec.suite import Suite, load_suite
from netsim.library import ROOT
from reports.claim_runs import claim_runs
from reports.claims import LOSSES, Tested, claims, claims_table, load_claims
from reports.pages.markdown_page import MarkdownPage
from reports.pages.suite_pages import suite_study

SUITES = ("claims-short", "claims", "claims-moe", "claims-rounds", "claims-narrow", "claims-placement", "claims-skip")

_HEAD = """# What the papers claim, tested on runs

Written by `longhaul docs claims` from docs/claims.yaml and docs/claims-runs.jsonl. The latter has every valid run of
the suites below, with what the claims ask of it. `longhaul docs claims --runs runs` adds runs to it, and `make claims`
trains them first.

"""


def trained_claims(runs: Path) -> pd.DataFrame:
    """The runs in `runs` of those suites that have any. `runs`: the folder that holds `claims-short` and so on."""
    there = [suite for suite in SUITES if (runs / suite).is_dir()]
    return claim_runs(suite_study(runs.joinpath, *(there or SUITES[:1])))


def claims_page(runs: pd.DataFrame) -> MarkdownPage:
    """Every claim of docs/claims.yaml, tested on these runs."""
    listed = load_claims(ROOT / "docs" / "claims.yaml")
    suites = {name: load_suite(ROOT / "suites" / f"{name}.yaml") for name in SUITES}
    tested = claims(runs, listed, _trained_by(suites))
    return MarkdownPage("claims", _HEAD + _extent(runs, suites) + _power(tested) + claims_table(tested).markdown())


def _power(tested: Sequence[Tested]) -> str:
    """What three seeds see of a loss, as far as claims were trained: what to expect of those that were not."""
    seen = [one.sees for one in tested if one.sees is not None and one.claim.metric in LOSSES]
    if not seen:
        return ""
    least, most = (f"{100 * share:.1f} %" for share in (min(seen), max(seen)))
    return (
        f"Three seeds told differences of loss and perplexity from {least} to {most} on from none, in {len(seen)} "
        "claims; expect the same of claims that were not trained. A smaller effect needs more seeds: the interval "
        "narrows with their square root.\n\n"
    )


def _trained_by(suites: Mapping[str, Suite]) -> dict[str, str]:
    """By label, the suite that trains it: the shortest that does."""
    found: dict[str, str] = {}
    for name, suite in suites.items():
        for cell in suite.cells:
            found.setdefault(cell.label, name)
    return found


def _extent(runs: pd.DataFrame, suites: Mapping[str, Suite]) -> str:
    """How much of each suite the page rests on."""
    parts = []
    for name, suite in suites.items():
        cells = {(cell.label, cell.seed) for cell in suite.cells}
        mine = runs[runs["suite"] == name]
        trained = cells & set(zip(mine["label"], mine["seed"], strict=True))
        parts.append(f"`{name}` {len(trained)} of {len(cells)} cells")
    return (
        f"Valid runs of the suites: {', '.join(parts)}. A claim without any of its runs is listed as not trained.\n\n"
    )
