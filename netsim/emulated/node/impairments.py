"""What each packet of a link meets: delay, jitter, loss, duplication. Seeded: the n-th packet always meets the same.

Loss and jitter draw from generators of their own, so that adding one does not change the other.
"""

from __future__ import annotations

import random
from functools import cache
from math import fsum, sqrt

from netsim.emulated.plan import Impairment

TAIL = 4.0  # deviations of a normal delay, and units of a Pareto one; netem's tables end there too


def _pareto(share: float) -> float:
    """The value that a `share` of netem's Pareto delays exceed: shape 3, cut at `TAIL`."""
    above: float = (share ** (-1 / 3) - 1.5) * 4 / 3
    return min(TAIL, above)


@cache
def pareto_moments() -> tuple[float, float]:
    """Mean and standard deviation of netem's Pareto table, which are not the zero and one that its name promises."""
    draws = [_pareto(index / 4096) for index in range(1, 4097)]
    # By hand: the module `statistics` would cost the agent a tenth of its start.
    mean = fsum(draws) / len(draws)
    return mean, sqrt(fsum((draw - mean) ** 2 for draw in draws) / len(draws))


class Fate:
    """Decides over the packets of one directed link, in order of arrival."""

    def __init__(self, impairment: Impairment) -> None:
        self._loss = random.Random(f"loss:{impairment.seed}").random
        self._jitter = random.Random(f"jitter:{impairment.seed}")
        self._copies = random.Random(f"duplicate:{impairment.seed}").random
        self._bad = False
        self.change(impairment)

    def change(self, impairment: Impairment) -> None:
        """New parameters from the next packet on; the generators go on where they are."""
        self.impairment = impairment
        self.lossy = bool(impairment.to_bad or impairment.loss_in_good)
        self.constant = not impairment.spread

    def lost(self) -> bool:
        """Steps the Gilbert-Elliott chain, then draws the loss of its state; Bernoulli is a chain that stays good."""
        i = self.impairment
        if i.to_bad or self._bad:
            if self._bad:
                self._bad = self._loss() >= i.to_good
            else:
                self._bad = self._loss() < i.to_bad
        probability = i.loss_in_bad if self._bad else i.loss_in_good
        return probability > 0 and self._loss() < probability

    def duplicated(self) -> bool:
        return self.impairment.duplicate > 0 and self._copies() < self.impairment.duplicate

    def delay(self) -> float:
        """Seconds, never below zero."""
        i = self.impairment
        if not i.spread:
            return i.delay
        return max(0.0, i.delay + i.spread * deviate(i.distribution, self._jitter))


def pareto_deviate(share: float) -> float:
    """The quantile of a Pareto delay at `share`; the delays have mean zero and standard deviation one."""
    mean, deviation = pareto_moments()
    return (_pareto(1.0 - share) - mean) / deviation


def deviate(distribution: str, generator: random.Random) -> float:
    """One draw with mean zero; standard deviation one (normal, pareto) or half-width one (uniform)."""
    if distribution == "uniform":
        return generator.uniform(-1.0, 1.0)
    if distribution == "pareto":
        return pareto_deviate(generator.random())
    assert distribution == "normal", distribution
    return max(-TAIL, min(TAIL, generator.gauss(0.0, 1.0)))
