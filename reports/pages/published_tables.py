"""Published tables beside what `longhaul project` says: one row for each scenario that has a `published` block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.costmodel.published import PublishedCell
from harness.spec.scenario import Scenario
from reports.projection.projection_tables import entries_table


def published_table(tables: Sequence[tuple[Scenario, Sequence[PublishedCell]]]) -> str:
    """Markdown: by scenario its source, its cells, and how far they are off; errors in the order of the cells."""
    return entries_table("published", "", [_entry(scenario, cells) for scenario, cells in tables]).markdown().rstrip()


def _entry(scenario: Scenario, cells: Sequence[PublishedCell]) -> dict[str, Any]:
    assert scenario.published is not None
    rates = [cell for cell in cells if cell.quantity.startswith("Gbit/s")]
    times = [cell for cell in cells if cell not in rates]
    exact = sum(cell.off == 0 for cell in rates)
    notches = f"{sum(cell.agrees for cell in rates)} of {len(rates)} rates within a notch, {exact} exact"
    errors = ", ".join(f"{cell.off:+.2f}" for cell in times)
    kind = "measured" if scenario.published.measured else "computed"
    return {
        "scenario": scenario.name,
        "published": scenario.published.source,
        "cells": f"{len(cells)}, {kind}",
        "agreement": "; ".join(part for part in (notches if rates else "", f"{errors} %" if times else "") if part),
    }
