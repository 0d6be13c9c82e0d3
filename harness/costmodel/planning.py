"""Answers for planning, from the same model as the rows.

Time is the time to process the scenario's tokens. That two methods reach the same loss with the same tokens is not
claimed; what a method's tokens are worth is measured by suites, not projected.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from algorithms.method import Method, find
from algorithms.shape import ModelShape
from harness.costmodel.calibration import Calibration
from harness.costmodel.projected_row import ProjectedRow
from harness.costmodel.projection import Projected, Variant, link_model_of, memory_of, plan_of, project
from harness.spec.scenario import MethodEntry, Scenario
from netsim.errors import InputError
from netsim.simulated.closed_form import load_of, times
from netsim.simulated.flows import Floats
from netsim.simulated.link_model import LinkModel
from netsim.traffic import Plan

RATES: Floats = np.logspace(5, 14, 901)  # bit/s; 1 % of a decade between neighbours is 2.3 %
LONGEST_PERIOD = 1 << 16
MOST_LAYERS = 1 << 12
ROUNDS = 60
NUDGE = 0.1


@dataclass(frozen=True)
class BandwidthAnswer:
    """rate_gbit: the least line rate by target utilisation; None where no rate suffices."""

    label: str
    rtt_ms: float
    rate_gbit: dict[str, float | None]


@dataclass(frozen=True)
class PeriodAnswer:
    """The least periods, in local steps; None where none up to `LONGEST_PERIOD` suffices."""

    label: str
    sync_every: int
    as_fast_as: str
    break_even_sync_every: int | None
    sync_every_for_90_percent: int | None


@dataclass(frozen=True)
class LargestModel:
    """layers: 0 where not even one fits."""

    label: str
    site_memory_bytes: int
    layers: int
    parameters: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Cheapest:
    """The best methods at a rate and an RTT; the last two are None without prices."""

    rate_gbit: float
    rtt_ms: float
    fastest: str
    total_seconds: float
    least_money: str | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """elasticity: per cent of total time per per cent of the input."""

    label: str
    input: str
    elasticity: float


@dataclass(frozen=True)
class Answers:
    """The answer tables of a scenario; None where a table needs equal links and the scenario names a topology."""

    bandwidth_for_utilisation: tuple[BandwidthAnswer, ...] | None
    break_even_period: tuple[PeriodAnswer, ...] | None
    largest_model: tuple[LargestModel, ...]
    cheapest: tuple[Cheapest, ...] | None
    sensitivities: tuple[Sensitivity, ...] | None

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """By table; columns that depend on prices are left out where there are none."""
        tables = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: [_entry(one) for one in table] for name, table in tables.items() if table is not None}


def _entry(answer: Any) -> dict[str, Any]:
    entry = asdict(answer)
    if isinstance(answer, Cheapest) and answer.least_money is None:
        del entry["least_money"], entry["cost_usd"]
    return entry


def answers(scenario: Scenario, rows: Sequence[ProjectedRow], calibration: Calibration | None) -> Answers:
    """All answer tables of a scenario on a uniform network; with a topology, those that need no rate."""
    largest = tuple(largest_models(scenario))
    if scenario.topology is not None:
        return Answers(None, None, largest, None, None)
    link_model = link_model_of(calibration, scenario.framing)
    base = [project(scenario, Variant(entry, scenario.sites)) for entry in scenario.methods]
    return Answers(
        bandwidth_for_utilisation=tuple(bandwidth_for(scenario, each, link_model) for each in base),
        break_even_period=tuple(break_even(scenario, base, link_model)),
        largest_model=largest,
        cheapest=tuple(cheapest(scenario, rows)),
        sensitivities=tuple(entry for each in base for entry in sensitivities(scenario, each, link_model)),
    )


def bandwidth_for(scenario: Scenario, projected: Projected, link_model: LinkModel) -> BandwidthAnswer:
    """The least line rate, Gbit/s, at which the method reaches each compute utilisation at the scenario's RTT. Null
    where no rate does, because latency alone is too much."""
    assert scenario.rtt is not None
    rtt = np.array([scenario.rtt])

    def reached(index: int) -> float:  # grows with the rate
        return float(projected.utilisation(RATES[index : index + 1], rtt, link_model)[0])

    needed: dict[str, float | None] = {}
    for target in scenario.targets:
        index = bisect_left(range(len(RATES)), target, key=reached)
        needed[f"{100 * target:g} %"] = float(f"{RATES[index] / 1e9:.4g}") if index < len(RATES) else None
    return BandwidthAnswer(projected.variant.label, 1e3 * scenario.rtt, needed)


def break_even(scenario: Scenario, base: Sequence[Projected], link_model: LinkModel) -> list[PeriodAnswer]:
    """For each method with a period, at the scenario's rate and RTT: the least `sync_every` at which it takes no longer
    per token than DDP (or the first method), and the least at which nine tenths of the time is computation."""
    reference = next((each for each in base if each.variant.entry.method == "ddp"), base[0])
    rate, rtt = np.array([scenario.rate]), np.array([scenario.rtt])
    limit = float(np.add(*reference.seconds(rate, rtt, link_model))[0]) / reference.tokens
    found: list[PeriodAnswer] = []
    for each in base:
        if getattr(each.method.options, "sync_every", None) is None:
            continue
        at = _Periods(scenario, each, link_model)
        found.append(
            PeriodAnswer(
                label=each.variant.label,
                sync_every=each.method.options.sync_every,
                as_fast_as=reference.variant.label,
                break_even_sync_every=at.least(lambda seconds, _: seconds <= limit),
                sync_every_for_90_percent=at.least(lambda _, utilisation: utilisation >= 0.9),
            )
        )
    return found


class _Periods:
    """Seconds per token and compute utilisation of a method as its period changes."""

    def __init__(self, scenario: Scenario, projected: Projected, link_model: LinkModel) -> None:
        self.scenario, self.projected, self.link_model = scenario, projected, link_model
        self.known: dict[int, tuple[float, float]] = {}

    def at(self, period: int) -> tuple[float, float]:
        if period not in self.known:
            entry, scenario = self.projected.variant.entry, self.scenario
            method = find(entry.method, {**entry.options, "sync_every": period}, scenario.where)
            steps = ROUNDS * period  # whole rounds, few enough to be quick, and enough to dilute a warm-up
            load = load_of(plan_of(scenario, entry, method, scenario.sites, steps), self.link_model.chunking)
            step, share = self.projected.step_seconds, self.projected.backward_share
            found = times(load, step, scenario.rate or 0.0, scenario.rtt or 0.0, self.link_model, share)
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


def largest_models(scenario: Scenario) -> list[LargestModel]:
    """The largest model of the scenario's width, by adding layers, that fits a site's memory under each method, the
    buffers of a synchronisation included."""
    found: list[LargestModel] = []
    for entry in scenario.methods:
        shape, method = scenario.shape_of(entry), find(entry.method, entry.options, scenario.where)
        steps = _first_steps(method.plan(shape, scenario.sites, entry.steps or scenario.steps))

        def deeper(layers: int, shape: ModelShape = shape) -> ModelShape:
            return ModelShape.model_validate({**shape.model_dump(), "layers": layers})

        def needed(
            layers: int,
            entry: MethodEntry = entry,
            method: Method[Any] = method,
            deeper: Callable[[int], ModelShape] = deeper,
            steps: int = steps,
        ) -> int:
            load = load_of(method.plan(deeper(layers), scenario.sites, steps))
            return sum(memory_of(scenario, entry, method, deeper(layers), scenario.sites, load).values())

        layers = bisect_right(range(1, MOST_LAYERS + 1), scenario.site_memory, key=needed)
        found.append(
            LargestModel(
                label=entry.label or entry.method,
                site_memory_bytes=scenario.site_memory,
                layers=layers,
                parameters=deeper(layers).count() if layers else 0,
                memory_bytes=needed(layers) if layers else None,
            )
        )
    return found


def _first_steps(plan: Plan) -> int:
    """So many steps release everything that the plan ever releases, but for what changes from one time to the next."""
    return min(plan.steps, max((r.first + (r.every if r.count > 1 else 0) for r in plan.recurrences), default=1))


def cheapest(scenario: Scenario, rows: Sequence[ProjectedRow]) -> list[Cheapest]:
    """At every rate and RTT of the sweep, the method that takes least time per token (and least money, where prices
    are given) among those that fit a site's memory; if none fits, among all. Methods with a model of their own do not
    take part: their tokens cost other FLOPs."""
    places: dict[tuple[float, float], list[ProjectedRow]] = {}
    for row in rows:
        if row.axis == "base" and row.model == scenario.model.name:
            places.setdefault((row.rate_gbit, row.rtt_ms), []).append(row)
    found: list[Cheapest] = []
    for (rate, rtt), there in sorted(places.items()):
        fitting = [row for row in there if row.fits] or there
        fastest = min(fitting, key=lambda row: row.total_seconds / row.tokens)
        at = Cheapest(rate, rtt, fastest.label, fastest.total_seconds)
        priced = [(row.cost_usd / row.tokens, row) for row in fitting if row.cost_usd is not None]
        if len(priced) == len(fitting):
            _, least = min(priced, key=lambda pair: pair[0])
            at = replace(at, least_money=least.label, cost_usd=least.cost_usd)
        found.append(at)
    return found


def sensitivities(scenario: Scenario, projected: Projected, link_model: LinkModel) -> list[Sensitivity]:
    """By how many per cent total time changes per per cent of each input, at the base: largest first."""
    assert scenario.rate is not None
    assert scenario.rtt is not None
    entry = projected.variant.entry

    def total(rate: float = 1.0, rtt: float = 1.0, faster: float = 1.0, one: Projected = projected) -> float:
        seconds = one.seconds(
            np.array([rate * (scenario.rate or 0.0)]), np.array([rtt * (scenario.rtt or 0.0)]), link_model, faster
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
        Sensitivity(projected.variant.label, name, float(np.log(more / less) / np.log(up / down)))
        for name, (more, less) in pairs.items()
    ]
    return sorted(found, key=lambda answer: -abs(answer.elasticity))
