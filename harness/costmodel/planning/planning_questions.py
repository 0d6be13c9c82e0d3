"""What planners ask: the rate to be near one site, the period for a utilisation, a deadline, a budget."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from harness.costmodel.projected_row import ProjectedRow
from harness.costmodel.projection import Projected, Variant, project
from harness.spec.scenario import Scenario
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_model import LinkModel

RATES: Floats = np.logspace(5, 14, 901)  # bit/s; 1 % of a decade between neighbours is 2.3 %
LONGEST_PERIOD = 1 << 16
ROUNDS = 60
DAY = 86_400  # seconds


@dataclass(frozen=True)
class NearOneSite:
    """rate_gbit: the least line rate at which a method's time per token is that of `compared_with` on as many devices
    in one site, plus so many per cent; None where no rate suffices."""

    label: str
    rtt_ms: float
    compared_with: str
    rate_gbit: dict[str, float | None]


@dataclass(frozen=True)
class PeriodForUtilisation:
    """sync_every: the least period, in local steps, by compute utilisation; None up to `LONGEST_PERIOD`."""

    label: str
    rate_gbit: float
    rtt_ms: float
    sync_every: dict[str, int | None]


@dataclass(frozen=True)
class WithinLimits:
    """days and cost_usd: of the scenario's tokens.  in_time, in_budget: None where the scenario has no such limit.

    tokens_in_time: what the deadline leaves time for.
    """

    label: str
    fits_memory: bool
    days: float
    in_time: bool | None
    tokens_in_time: int | None
    cost_usd: float | None
    in_budget: bool | None


def near_one_site(scenario: Scenario, base: Sequence[Projected], link_model: LinkModel) -> Iterator[NearOneSite]:
    """For each method; one site is DDP's (or the first method's) computation alone, without any network. It divides the
    work by the devices' speed, and fails as often as all sites together."""
    assert scenario.rtt is not None
    reference = next((each for each in base if each.variant.entry.method == "ddp"), base[0])
    alone = one_site_seconds(reference) / reference.tokens
    rtt = np.array([scenario.rtt])
    for each in base:

        @cache
        def shortness(index: int, each: Projected = each) -> float:  # grows with the rate
            return -float(np.add(*each.seconds(RATES[index : index + 1], rtt, link_model))[0]) / each.tokens

        needed: dict[str, float | None] = {}
        for share in scenario.near:
            index = bisect_left(range(len(RATES)), -alone * (1 + share), key=shortness)
            needed[f"+{100 * share:g} %"] = float(f"{RATES[index] / 1e9:.4g}") if index < len(RATES) else None
        yield NearOneSite(each.variant.label, 1e3 * scenario.rtt, reference.variant.label, needed)


def one_site_seconds(projected: Projected) -> float:
    """Seconds that all devices would take for the method's tokens in one site."""
    alone = projected.pace.balanced * projected.plan.steps
    if projected.overhead is None:
        return alone
    together = replace(projected.overhead, needed=projected.overhead.counts)
    return alone + float(together.seconds(np.array(alone), np.array(1.0)))


def periods_for_utilisation(scenario: Scenario, searches: Sequence[Periods]) -> Iterator[PeriodForUtilisation]:
    """For each method with a period, at the scenario's rate and RTT and for its targets."""
    for at in searches:
        found = {f"{100 * target:g} %": at.least(_reaches(target)) for target in scenario.targets}
        rate, rtt = (scenario.rate or 0.0) / 1e9, 1e3 * (scenario.rtt or 0.0)
        yield PeriodForUtilisation(at.projected.variant.label, rate, rtt, found)


def _reaches(target: float) -> Callable[[float, float], bool]:
    return lambda _, utilisation: utilisation >= target


def within_limits(scenario: Scenario, rows: Sequence[ProjectedRow]) -> tuple[WithinLimits, ...] | None:
    """For each method at its base; None if the scenario has neither a deadline nor a budget."""
    deadline, budget = scenario.deadline, scenario.budget
    if deadline is None and budget is None:
        return None
    return tuple(
        WithinLimits(
            label=row.label,
            fits_memory=row.fits,
            days=row.total_seconds / DAY,
            in_time=None if deadline is None else row.total_seconds <= deadline,
            tokens_in_time=None if deadline is None else int(row.tokens * deadline / row.total_seconds),
            cost_usd=row.cost_usd,
            in_budget=None if budget is None or row.cost_usd is None else row.cost_usd <= budget,
        )
        for row in rows
    )


class Periods:
    """Seconds per token and compute utilisation of a method as its period changes."""

    def __init__(self, scenario: Scenario, projected: Projected, link_model: LinkModel) -> None:
        self.scenario, self.projected, self.link_model = scenario, projected, link_model
        self.known: dict[int, tuple[float, float]] = {}

    def projected_at(self, period: int) -> Projected:
        """Whole rounds, few enough to be quick, and enough to dilute a warm-up."""
        entry = self.projected.variant.entry
        changed = entry.model_copy(update={"options": {**entry.options, "sync_every": period}})
        return project(self.scenario, Variant(changed, self.scenario.sites), ROUNDS * period)

    def at(self, period: int) -> tuple[float, float]:
        if period not in self.known:
            projected = self.projected_at(period)
            spent = projected.spent_at_base(self.scenario, self.link_model)
            self.known[period] = float(spent.total) / projected.tokens, float(spent.compute / spent.total)
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
