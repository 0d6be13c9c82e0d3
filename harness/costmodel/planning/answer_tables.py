"""Answers for planning, from the same model as the rows.

Time is the time to process the scenario's tokens. That two methods reach the same loss with the same tokens is not
claimed: `equal_loss` says what a method's tokens are worth where the scenario states a law.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from typing import Any

import numpy as np

from algorithms.method import Method, find
from algorithms.shape import ModelShape
from harness.costmodel.calibration import Calibration
from harness.costmodel.planning.answer_sensitivities import (
    AnswerSensitivity,
    period_sensitivities,
    rate_sensitivities,
)
from harness.costmodel.planning.equal_loss import EqualLoss, equal_losses
from harness.costmodel.planning.largest_in_time import LargestInTime, largest_in_time
from harness.costmodel.planning.planning_questions import (
    RATES,
    NearOneSite,
    PeriodForUtilisation,
    Periods,
    WithinLimits,
    near_one_site,
    periods_for_utilisation,
    within_limits,
)
from harness.costmodel.planning.site_answers import FailureCost, StepParts, failure_costs, step_parts
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.costmodel.projection import Projected, Variant, link_model_of, memory_of, project
from harness.spec.scenario import MethodEntry, Scenario
from harness.spec.scenario_sites import EqualSites
from netsim.errors import InputError
from netsim.simulated.closed_form import load_of
from netsim.simulated.link_model import LinkModel
from netsim.traffic import Plan

MOST_LAYERS = 1 << 12
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
    """The best methods at a rate and an RTT, and by how many per cent the next ones take longer or cost more; those of
    money are None without prices."""

    rate_gbit: float
    rtt_ms: float
    fastest: str
    total_seconds: float
    next_fastest: str | None = None
    slower_percent: float | None = None
    least_money: str | None = None
    cost_usd: float | None = None
    next_least_money: str | None = None
    dearer_percent: float | None = None


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
    near_one_site: tuple[NearOneSite, ...] | None = None
    period_for_utilisation: tuple[PeriodForUtilisation, ...] | None = None
    within_limits: tuple[WithinLimits, ...] | None = None
    largest_in_time: tuple[LargestInTime, ...] | None = None
    equal_loss: tuple[EqualLoss, ...] | None = None
    answer_sensitivities: tuple[AnswerSensitivity, ...] | None = None
    step_parts: tuple[StepParts, ...] | None = None
    failure_costs: tuple[FailureCost, ...] | None = None

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """By table; columns that depend on prices are left out where there are none."""
        tables = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: [_entry(one) for one in table] for name, table in tables.items() if table is not None}


def _entry(answer: Any) -> dict[str, Any]:
    entry = asdict(answer)
    if isinstance(answer, Cheapest) and answer.least_money is None:
        for name in ("least_money", "cost_usd", "next_least_money", "dearer_percent"):
            del entry[name]
    return entry


def answers(scenario: Scenario, rows: Sequence[ProjectedRow], calibration: Calibration | None) -> Answers:
    """All answer tables of a scenario on a uniform network; with a topology, those that need no rate."""
    largest = tuple(largest_models(scenario))
    if scenario.topology is not None:
        return Answers(
            None,
            None,
            largest,
            None,
            None,
            within_limits=within_limits(scenario, base_rows(rows, scenario)),
            equal_loss=tuple(equal_losses(scenario, rows)) if scenario.quality is not None else None,
        )
    link_model = link_model_of(calibration, scenario.framing)
    base = [project(scenario, Variant(entry, scenario.sites)) for entry in scenario.methods]
    searches = [
        Periods(scenario, each, link_model)
        for each in base
        if getattr(each.method.options, "sync_every", None) is not None
    ]
    bandwidth = tuple(bandwidth_for(scenario, each, link_model) for each in base)
    near = tuple(near_one_site(scenario, base, link_model))
    periods = tuple(periods_for_utilisation(scenario, searches))
    own_rows = base_rows(rows, scenario)
    return Answers(
        bandwidth_for_utilisation=bandwidth,
        break_even_period=tuple(break_even(scenario, base, searches, link_model)),
        largest_model=largest,
        cheapest=tuple(cheapest(scenario, rows)),
        sensitivities=tuple(entry for each in base for entry in sensitivities(scenario, each, link_model)),
        near_one_site=near,
        period_for_utilisation=periods,
        within_limits=within_limits(scenario, own_rows),
        largest_in_time=tuple(largest_in_time(scenario, link_model)) if scenario.deadline is not None else None,
        equal_loss=tuple(equal_losses(scenario, own_rows)) if scenario.quality is not None else None,
        answer_sensitivities=(
            *rate_sensitivities(scenario, base, [answer.rate_gbit for answer in bandwidth], near, link_model),
            *period_sensitivities(scenario, searches, periods, link_model),
        ),
        step_parts=tuple(step_parts(scenario, base)) or None,
        failure_costs=tuple(failure_costs(scenario, base, link_model)) or None,
    )


def bandwidth_for(scenario: Scenario, projected: Projected, link_model: LinkModel) -> BandwidthAnswer:
    """The least line rate, Gbit/s, at which the method reaches each compute utilisation at the scenario's RTT. Null
    where no rate does, because latency alone is too much."""
    assert scenario.rtt is not None
    rtt = np.array([scenario.rtt])

    @cache
    def reached(index: int) -> float:  # grows with the rate
        return float(projected.utilisation(RATES[index : index + 1], rtt, link_model)[0])

    needed: dict[str, float | None] = {}
    for target in scenario.targets:
        index = bisect_left(range(len(RATES)), target, key=reached)
        needed[f"{100 * target:g} %"] = float(f"{RATES[index] / 1e9:.4g}") if index < len(RATES) else None
    return BandwidthAnswer(projected.variant.label, 1e3 * scenario.rtt, needed)


def break_even(
    scenario: Scenario, base: Sequence[Projected], searches: Sequence[Periods], link_model: LinkModel
) -> list[PeriodAnswer]:
    """For each method with a period, at the scenario's rate and RTT: the least `sync_every` at which it takes no longer
    per token than DDP (or the first method), and the least at which nine tenths of the time is computation."""
    reference = next((each for each in base if each.variant.entry.method == "ddp"), base[0])
    rate, rtt = np.array([scenario.rate]), np.array([scenario.rtt])
    limit = float(np.add(*reference.seconds(rate, rtt, link_model))[0]) / reference.tokens
    return [
        PeriodAnswer(
            label=at.projected.variant.label,
            sync_every=at.projected.method.options.sync_every,
            as_fast_as=reference.variant.label,
            break_even_sync_every=at.least(lambda seconds, _: seconds <= limit),
            sync_every_for_90_percent=at.least(lambda _, utilisation: utilisation >= 0.9),
        )
        for at in searches
    ]


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
            group: EqualSites,
            entry: MethodEntry = entry,
            method: Method[Any] = method,
            deeper: Callable[[int], ModelShape] = deeper,
            steps: int = steps,
        ) -> int:
            load = load_of(method.plan(deeper(layers), scenario.sites, steps))
            memory = memory_of(scenario, entry, method, deeper(layers), scenario.sites, load, group)
            return sum(memory.device.values())

        at = [
            (_last_within(partial(needed, group=group), group.memory, shape.layers), group) for group in scenario.groups
        ]
        layers, tightest = min(at, key=lambda pair: pair[0])
        found.append(
            LargestModel(
                label=entry.label or entry.method,
                site_memory_bytes=tightest.memory,
                layers=layers,
                parameters=deeper(layers).count() if layers else 0,
                memory_bytes=needed(layers, tightest) if layers else None,
            )
        )
    return found


def _last_within(needed: Callable[[int], int], limit: int, guess: int) -> int:
    """The last of 1 to `MOST_LAYERS` for which `needed`, which never falls and is nearly a straight line, is at most
    `limit`; 0 if none. A chord finds it in a few calls, and a bisection if the line bends."""
    low, high = 0, MOST_LAYERS + 1  # `low` is within (0: nothing), `high` is not
    at = {}
    layers = min(max(1, guess), MOST_LAYERS)
    while high - low > 1:
        at[layers] = needed(layers)
        if at[layers] <= limit:
            low = layers
        else:
            high = layers
        tried = sorted(at, key=lambda n: abs(n - layers))[:2]
        if len(tried) == 2 and at[tried[0]] != at[tried[1]] and len(at) < 8:
            a, b = tried
            layers = int(a + (limit - at[a]) * (b - a) / (at[b] - at[a]))
        else:
            layers = layers // 2 if at[layers] > limit else 2 * layers
            if len(at) > 1:
                layers = (low + high) // 2
        layers = min(max(layers, low + 1), high - 1)
    return low


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
        timed = sorted(((row.total_seconds / row.tokens, row) for row in fitting), key=lambda pair: pair[0])
        fastest, (following, percent) = timed[0][1], _next(timed)
        at = Cheapest(rate, rtt, fastest.label, fastest.total_seconds, following, percent)
        priced = [(row.cost_usd / row.tokens, row) for row in fitting if row.cost_usd is not None]
        if len(priced) == len(fitting):
            priced.sort(key=lambda pair: pair[0])
            least, (following, percent) = priced[0][1], _next(priced)
            at = replace(
                at,
                least_money=least.label,
                cost_usd=least.cost_usd,
                next_least_money=following,
                dearer_percent=percent,
            )
        found.append(at)
    return found


def _next(ordered: Sequence[tuple[float, ProjectedRow]]) -> tuple[str | None, float | None]:
    """The second best, and by how many per cent it is worse than the best."""
    if len(ordered) < 2:
        return None, None
    (best, _), (value, row) = ordered[:2]
    return row.label, 100 * (value / best - 1) if best else None


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
