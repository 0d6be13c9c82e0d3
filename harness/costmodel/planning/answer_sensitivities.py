"""By how much answers change with the inputs that they rest on.

An answer x solves f(x, input) = target; its elasticity is that of the implicit function, - (df / d ln input) /
(df / d ln x), with both differences at the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from harness.costmodel.planning.planning_questions import (
    NearOneSite,
    PeriodForUtilisation,
    Periods,
    one_site_seconds,
)
from harness.costmodel.projection import Projected
from harness.spec.scenario import Scenario
from netsim.simulated.link_model import LinkModel

NUDGE = 1.1


@dataclass(frozen=True)
class AnswerSensitivity:
    """value: the answer, in the unit of its table.  elasticity: per cent of it per per cent of the input; None where
    the answer does not depend on anything so near."""

    label: str
    answer: str
    value: float
    input: str
    elasticity: float | None


def _middle_target(scenario: Scenario) -> float:
    """The utilisation next to 90 %."""
    return min(scenario.targets, key=lambda share: abs(share - 0.9), default=0.9)


def rate_sensitivities(
    scenario: Scenario,
    base: Sequence[Projected],
    utilisation: Sequence[dict[str, float | None]],
    near: Sequence[NearOneSite],
    link_model: LinkModel,
) -> Iterator[AnswerSensitivity]:
    """Of the access rate for the utilisation next to 90 %, and of that to be near one site by the middle share."""
    target = _middle_target(scenario)
    share = sorted(scenario.near)[len(scenario.near) // 2] if scenario.near else 0.0
    for each, rates, one_site in zip(base, utilisation, near, strict=True):
        alone = one_site_seconds(each)

        def reached(rate: float, rtt: float, faster: float, each: Projected = each) -> float:
            return float(each.utilisation(np.array(rate), np.array(rtt), link_model, faster))

        def longer(rate: float, rtt: float, faster: float, each: Projected = each, alone: float = alone) -> float:
            spent = each.spent(np.array(rate), np.array(rtt), link_model, faster)
            return -log(float(spent.total) * faster / alone)

        asked = (
            (f"rate for {100 * target:g} % utilisation (Gbit/s)", rates.get(f"{100 * target:g} %"), reached),
            (f"rate for one site +{100 * share:g} % (Gbit/s)", one_site.rate_gbit.get(f"+{100 * share:g} %"), longer),
        )
        for name, value, f in asked:
            if value is None:
                continue
            rate, rtt = 1e9 * value, scenario.rtt or 0.0
            by_rate = f(rate * NUDGE, rtt, 1.0) - f(rate / NUDGE, rtt, 1.0)
            inputs = {
                "rtt": f(rate, rtt * NUDGE, 1.0) - f(rate, rtt / NUDGE, 1.0),
                "achieved FLOP/s": f(rate, rtt, NUDGE) - f(rate, rtt, 1 / NUDGE),
            }
            for of, change in inputs.items():
                elasticity = None if by_rate == 0 else 0.0 - change / by_rate
                yield AnswerSensitivity(each.variant.label, name, value, of, elasticity)


def period_sensitivities(
    scenario: Scenario, searches: Sequence[Periods], answers: Sequence[PeriodForUtilisation], link_model: LinkModel
) -> Iterator[AnswerSensitivity]:
    """Of the period for the utilisation next to 90 %."""
    target = _middle_target(scenario)
    for search, answer in zip(searches, answers, strict=True):
        period = answer.sync_every.get(f"{100 * target:g} %")
        if period is None or period < 10:
            continue
        longer, shorter = round(period * NUDGE), round(period / NUDGE)
        slope = (search.at(longer)[1] - search.at(shorter)[1]) / log(longer / shorter)
        at = search.projected_at(period)
        for of in ("rate", "rtt", "achieved FLOP/s"):
            reached = []
            for by in (NUDGE, 1 / NUDGE):
                rate = (scenario.rate or 0.0) * (by if of == "rate" else 1.0)
                rtt = (scenario.rtt or 0.0) * (by if of == "rtt" else 1.0)
                faster = by if of == "achieved FLOP/s" else 1.0
                reached.append(float(at.utilisation(np.array(rate), np.array(rtt), link_model, faster)))
            change = (reached[0] - reached[1]) / (2 * log(NUDGE))
            elasticity = None if slope == 0 else 0.0 - change / slope
            name = f"period for {100 * target:g} % utilisation (steps)"
            yield AnswerSensitivity(search.projected.variant.label, name, float(period), of, elasticity)
