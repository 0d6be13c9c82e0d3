"""What each packet of a link meets: delay, jitter, loss, duplication. Seeded: the n-th packet always meets the same.

Loss and jitter draw from generators of their own, so that adding one does not change the other.
"""

from __future__ import annotations

import math
import random

from netsim.emulated.plan import Impairment

# Pareto of shape 3 has mean 3/2 and variance 3/4; scaled to mean zero and deviation one, as netem's table is.
_SHAPE, _MEAN, _DEVIATION = 3.0, 1.5, math.sqrt(0.75)
TAIL = 4.0  # deviations; netem's tables end there too


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


def deviate(distribution: str, generator: random.Random) -> float:
    """One draw with mean zero; standard deviation one (normal, pareto, cut at four) or half-width one (uniform)."""
    if distribution == "uniform":
        return generator.uniform(-1.0, 1.0)
    if distribution == "pareto":
        draw: float = ((1.0 - generator.random()) ** (-1 / _SHAPE) - _MEAN) / _DEVIATION
        return min(TAIL, draw)
    assert distribution == "normal", distribution
    return max(-TAIL, min(TAIL, generator.gauss(0.0, 1.0)))
