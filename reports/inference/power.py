"""The smallest difference that n pairs can see.

A result of "no difference" means little where n is small: these numbers say what it could have missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isfinite, sqrt

import numpy as np
from scipy import optimize, stats

POWER, LEVEL = 0.8, 0.05
_QUANTILES = 20_000


@cache
def standardised_effect(n: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """Mean over standard deviation of the paired differences that a two-sided paired t-test of n pairs finds.

    With probability `power`, at significance `level` (Cohen 1988, chapter 2; the noncentral t distribution). None below
    two pairs.
    """
    if n < 2:
        return None
    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    # The spread of a sample over its expectation, at even quantiles: scipy's nct is NaN for few pairs.
    spreads = stats.chi.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, n - 1) / sqrt(n - 1)

    def missing(effect: float) -> float:
        shift = effect * sqrt(n)
        tails = stats.norm.cdf(shift - critical * spreads) + stats.norm.cdf(-shift - critical * spreads)
        return float(tails.mean()) - power

    upper = 1.0
    while missing(upper) < 0:
        upper *= 2
    return float(optimize.brentq(missing, 0.0, upper))


def detectable_effect(differences: Sequence[float], power: float = POWER, level: float = LEVEL) -> float | None:
    """In the unit of the paired `differences`, by their own standard deviation; None below three finite ones.

    The standard deviation of few pairs is itself uncertain: with three, its 95 % interval spans from half to six times.
    """
    finite = [value for value in differences if isfinite(value)]
    if len(finite) < 3:
        return None
    effect = standardised_effect(len(finite), power, level)
    return None if effect is None else effect * float(np.std(finite, ddof=1))
