"""Answers for planning, from the same model as the rows.

Time is the time to process the scenario's tokens. That two methods reach the same loss with the same tokens is not
claimed; what a method's tokens are worth is measured by suites, not projected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from algorithms.method import find
from algorithms.shape import ModelShape
from harness.costmodel.calibration import Calibration
from harness.costmodel.projection import Projected, Row, Variant, physics_of, project
from harness.costmodel.site_memory import site_memory
from harness.spec.scenario import MethodEntry, Scenario
from netsim.errors import InputError
from netsim.simulated.closed_form import Load, load_of, times
from netsim.simulated.flows import Floats
from netsim.simulated.link_model import LinkModel

RATES: Floats = np.logspace(5, 14, 901)  # bit/s; 1 % of a decade between neighbours is 2.3 %
LONGEST_PERIOD = 1 << 16
MOST_LAYERS = 1 << 12
ROUNDS = 60
NUDGE = 0.1

Answers = dict[str, Any]


def answers(scenario: Scenario, rows: Sequence[Row], calibration: Calibration | None) -> Answers:
    """All answer tables of a scenario on a uniform network; with a topology, those that need no rate."""
    found: Answers = {"largest_model": largest_models(scenario)}
    if scenario.topology is not None:
        return found
    physics = physics_of(calibration)
    base = [project(scenario, Variant(entry, scenario.sites)) for entry in scenario.methods]
    return {
        "bandwidth_for_utilisation": [bandwidth_for(scenario, each, physics) for each in base],
        "break_even_period": break_even(scenario, base, physics),
        **found,
        "cheapest": cheapest(scenario, rows),
        "sensitivities": [sensitivity for each in base for sensitivity in sensitivities(scenario, each, physics)],
    }


def bandwidth_for(scenario: Scenario, projected: Projected, physics: LinkModel) -> Row:
    """The least line rate, Gbit/s, at which the method reaches each compute utilisation at the scenario's RTT. Null
    where no rate does, because latency alone is too much."""
    assert scenario.rtt is not None
    reached = projected.utilisation(RATES, np.full_like(RATES, scenario.rtt), physics)
    needed: dict[str, float | None] = {}
    for target in scenario.targets:
        enough = np.flatnonzero(reached >= target)
        needed[f"{100 * target:g} %"] = float(f"{RATES[enough[0]] / 1e9:.4g}") if enough.size else None
    return {"label": projected.variant.entry.label, "rtt_ms": 1e3 * scenario.rtt, "rate_gbit": needed}


def break_even(scenario: Scenario, base: Sequence[Projected], physics: LinkModel) -> list[Row]:
    """For each method with a period, at the scenario's rate and RTT: the least `sync_every` at which it takes no longer
    per token than DDP (or the first method), and the least at which nine tenths of the time is computation."""
    reference = next((each for each in base if each.variant.entry.method == "ddp"), base[0])
    rate, rtt = np.array([scenario.rate]), np.array([scenario.rtt])
    limit = float(np.add(*reference.seconds(rate, rtt, physics))[0]) / reference.tokens
    found: list[Row] = []
    for each in base:
        if getattr(each.method.options, "sync_every", None) is None:
            continue
        at = _Periods(scenario, each, physics)
        found.append(
            {
                "label": each.variant.entry.label,
                "sync_every": each.method.options.sync_every,
                "as_fast_as": reference.variant.entry.label,
                "break_even_sync_every": at.least(lambda seconds, _: seconds <= limit),
                "sync_every_for_90_percent": at.least(lambda _, utilisation: utilisation >= 0.9),
            }
        )
    return found


class _Periods:
    """Seconds per token and compute utilisation of a method as its period changes."""

    def __init__(self, scenario: Scenario, projected: Projected, physics: LinkModel) -> None:
        self.scenario, self.projected, self.physics = scenario, projected, physics
        self.known: dict[int, tuple[float, float]] = {}

    def at(self, period: int) -> tuple[float, float]:
        if period not in self.known:
            entry, scenario = self.projected.variant.entry, self.scenario
            method = find(entry.method, {**entry.options, "sync_every": period}, scenario.where)
            steps = ROUNDS * period  # whole rounds, few enough to be quick, and enough to dilute a warm-up
            load = load_of(method.plan(scenario.shape_of(entry), scenario.sites, steps), self.physics.pieces)
            step = self.projected.step_seconds
            found = times(load, step, scenario.rate or 0.0, scenario.rtt or 0.0, self.physics)
            total = float(found.total)
            tokens = self.projected.tokens / self.projected.plan.steps * steps
            self.known[period] = total / tokens, steps * step / total
        return self.known[period]

    def least(self, holds: Callable[[float, float], bool]) -> int | None:
        """The least period (from 100 on, to two digits) for which `holds`, which once true stays true; None if none
        up to the longest."""
        high = 1
        while not holds(*self.at(high)):
            high *= 4
            if high > LONGEST_PERIOD:
                return None
        low = high // 4
        while high - low > max(1, low // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if holds(*self.at(middle)) else (middle, high)
        return high


def largest_models(scenario: Scenario) -> list[Row]:
    """The largest model of the scenario's width, by adding layers, that fits a site's memory under each method."""
    found: list[Row] = []
    for entry in scenario.methods:
        shape = scenario.shape_of(entry)

        def deeper(layers: int, shape: ModelShape = shape) -> ModelShape:
            return ModelShape.model_validate({**shape.model_dump(), "layers": layers})

        def needed(layers: int, entry: MethodEntry = entry, deeper: Callable[[int], ModelShape] = deeper) -> int:
            return _needed(scenario, entry, deeper(layers))

        # Every component grows by the same bytes with every layer.
        least, per_layer = needed(1), needed(2) - needed(1)
        layers = max(0, min(MOST_LAYERS, 1 + (scenario.site_memory - least) // per_layer))
        found.append(
            {
                "label": entry.label,
                "site_memory_bytes": scenario.site_memory,
                "layers": layers,
                "parameters": deeper(layers).count() if layers else 0,
                "memory_bytes": least + (layers - 1) * per_layer if layers else None,
            }
        )
    return found


def _needed(scenario: Scenario, entry: MethodEntry, shape: ModelShape) -> int:
    """Bytes that a site needs for a model, without the buffers of a synchronisation (which may be sent in parts)."""
    method = find(entry.method, entry.options, scenario.where)
    sequences = min(
        scenario.site.devices * scenario.site.micro_batch,
        max(1, round((entry.batch or scenario.batch) / scenario.sites)),
    )
    memory = site_memory(
        method, shape, scenario.sites, Load(0, 0, ()), scenario.precision, sequences, scenario.site.recompute
    )
    return sum(memory.values())


def cheapest(scenario: Scenario, rows: Sequence[Row]) -> list[Row]:
    """At every rate and RTT of the sweep, the method that takes least time per token (and least money, where prices
    are given) among those that fit a site's memory; if none fits, among all. Methods with a model of their own do not
    take part: their tokens cost other FLOPs."""
    places: dict[tuple[float, float], list[Row]] = {}
    for row in rows:
        if row["axis"] == "base" and row["model"] == scenario.model.name:
            places.setdefault((row["rate_gbit"], row["rtt_ms"]), []).append(row)
    found: list[Row] = []
    for (rate, rtt), there in sorted(places.items()):
        fitting = [row for row in there if row["fits"]] or there
        fastest = min(fitting, key=lambda row: row["total_seconds"] / row["tokens"])
        entry: Row = {
            "rate_gbit": rate,
            "rtt_ms": rtt,
            "fastest": fastest["label"],
            "total_seconds": fastest["total_seconds"],
        }
        if all(row["cost_usd"] is not None for row in fitting):
            least = min(fitting, key=lambda row: row["cost_usd"] / row["tokens"])
            entry |= {"least_money": least["label"], "cost_usd": least["cost_usd"]}
        found.append(entry)
    return found


def sensitivities(scenario: Scenario, projected: Projected, physics: LinkModel) -> list[Row]:
    """By how many per cent total time changes per per cent of each input, at the base: largest first."""
    assert scenario.rate is not None
    assert scenario.rtt is not None
    entry = projected.variant.entry

    def total(rate: float = 1.0, rtt: float = 1.0, faster: float = 1.0, one: Projected = projected) -> float:
        seconds = one.seconds(
            np.array([rate * (scenario.rate or 0.0)]), np.array([rtt * (scenario.rtt or 0.0)]), physics, faster
        )
        return float(np.add(*seconds)[0])

    up, down = 1 + NUDGE, 1 / (1 + NUDGE)
    pairs = {
        "rate": (total(rate=up), total(rate=down)),
        "rtt": (total(rtt=up), total(rtt=down)),
        "achieved FLOP/s": (total(faster=up), total(faster=down)),
    }
    period = getattr(projected.method.options, "sync_every", None)
    if period is not None and period >= 8:
        options = [{**entry.options, "sync_every": round(period * by)} for by in (up, down)]
        try:
            longer, shorter = (
                project(scenario, Variant(entry.model_copy(update={"options": o}), scenario.sites)) for o in options
            )
            pairs["sync_every"] = total(one=longer), total(one=shorter)
        except InputError:
            pass  # a method may refuse a period that others of its options do not fit
    found = [
        {
            "label": entry.label,
            "input": name,
            "elasticity": float(np.log(more / less) / np.log(up / down)),
        }
        for name, (more, less) in pairs.items()
    ]
    return sorted(found, key=lambda row: -abs(float(row["elasticity"])))
