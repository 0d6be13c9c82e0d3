"""Tables that papers print, beside what a scenario of theirs projects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from harness.costmodel.projection import Projected, Variant, link_model_of, project
from harness.spec.scenario import MethodEntry, Published, Scenario
from netsim.errors import InputError
from netsim.library import shipped
from netsim.simulated.fair_rates import Floats

CLOSE = 0.02  # relative difference of seconds and hours that counts as agreement
SHARE = 0.9  # of the cells that must agree


@dataclass(frozen=True)
class PublishedCell:
    """One number of a paper. off: grid notches for rates, per cent for times; agrees: within one notch, or 2 %.

    projected: None where no rate of the grid reaches the target.  measured: by others, and not computed by them.
    """

    scenario: str
    label: str
    quantity: str
    published: float
    projected: float | None
    off: float
    agrees: bool
    measured: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def published_scenarios() -> list[Path]:
    """The shipped scenarios that have a `published` block."""
    return sorted((shipped("scenarios") / "published").glob("*.yaml"))


def published_cells(scenario: Scenario) -> list[PublishedCell]:
    """Every cell of the scenario's `published` block; none if it has no such block."""
    if (published := scenario.published) is None:
        return []
    entries = {entry.label or entry.method: entry for entry in scenario.methods}
    labels = {*published.rate_gbit, *published.sync_seconds, *published.total_hours}
    if unknown := sorted(labels - entries.keys()):
        raise InputError(scenario.where, "published", unknown[0], f"labels of methods: {', '.join(entries)}")
    return [cell for label, entry in entries.items() for cell in _cells(scenario, published, label, entry)]


def _cells(scenario: Scenario, published: Published, label: str, entry: MethodEntry) -> Iterator[PublishedCell]:
    projected = project(scenario, Variant(entry, scenario.sites))
    link_model = link_model_of(None, scenario.framing)
    if label in published.rate_gbit:
        yield from _rates(scenario, published, label, projected)
    if label in published.sync_seconds or label in published.total_hours:
        assert scenario.rate is not None
        assert scenario.rtt is not None
        compute, exposed = projected.seconds(np.array([scenario.rate]), np.array([scenario.rtt]), link_model)
        ours = {
            "s per synchronisation": (published.sync_seconds, float(exposed[0]) / max(1, projected.load.syncs)),
            "h in total": (published.total_hours, float(compute[0] + exposed[0]) / 3600),
        }
        for quantity, (theirs, value) in ours.items():
            if label in theirs:
                off = 100 * (value / theirs[label] - 1)
                agrees, measured = abs(off) <= 100 * CLOSE, published.measured
                yield PublishedCell(scenario.name, label, quantity, theirs[label], value, off, agrees, measured)


def _rates(scenario: Scenario, published: Published, label: str, projected: Projected) -> Iterator[PublishedCell]:
    assert published.grid is not None
    assert scenario.rtt is not None
    cells = published.rate_gbit[label]
    if len(cells) != len(scenario.targets):
        allowed = f"one for each of the {len(scenario.targets)} targets"
        raise InputError(scenario.where, f"published.rate_gbit.{label}", f"{len(cells)} cells", allowed)
    grid: Floats = np.geomspace(published.grid.low, published.grid.high, published.grid.points)
    reached = projected.utilisation(grid, np.full_like(grid, scenario.rtt), link_model_of(None, scenario.framing))
    for target, cell in zip(scenario.targets, cells, strict=True):
        index = int(np.searchsorted(np.maximum.accumulate(reached), target))
        notch = int(np.abs(np.log(grid / 1e9 / cell)).argmin())
        rate = float(grid[index]) / 1e9 if index < len(grid) else None
        off = float(index - notch)
        yield PublishedCell(scenario.name, label, f"Gbit/s for {target:.0%}", cell, rate, off, abs(off) <= 1)


def agreement(cells: Sequence[PublishedCell]) -> float:
    """The share of computed cells that agree; 1 if all cells are measurements, which have an error instead."""
    computed = [cell.agrees for cell in cells if not cell.measured]
    return sum(computed) / len(computed) if computed else 1.0


def measured_error(cells: Sequence[PublishedCell]) -> tuple[float, float] | None:
    """Mean and maximum absolute error of the cells that others measured, per cent."""
    errors = [abs(cell.off) for cell in cells if cell.measured]
    return (fmean(errors), max(errors)) if errors else None
