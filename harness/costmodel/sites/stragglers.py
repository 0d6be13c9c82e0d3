"""Waiting for the slowest: sites of unlike speed, and steps whose time varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SPREADS, _POINTS = 12, 2001  # standard deviations around the means that are integrated over, and at how many points


@dataclass(frozen=True)
class Pace:
    """Seconds of a local step: mean of all sites; of the one that the others wait for, as expected; and the shortest
    that the same machines would take if they divided the work by their speed (the harmonic mean)."""

    mean: float
    slowest: float
    balanced: float


def pace_of(counts: Sequence[int], seconds: Sequence[float], jitter: float, steps: float) -> Pace:
    """The pace of `counts` sites of each kind, whose steps take `seconds` and who wait for each other every `steps`.

    Each step's time is gamma distributed with `jitter`, its standard deviation over its mean, as in the simulator
    (`netsim.simulated.compute`), so that the sum over a round is, too; sites are independent of each other.
    """
    sites = sum(counts)
    mean = sum(count * each for count, each in zip(counts, seconds, strict=True)) / sites
    balanced = sites / sum(count / each for count, each in zip(counts, seconds, strict=True))
    slowest = max(seconds)
    if jitter and sites > 1:
        slowest = _expected_maximum(counts, seconds, jitter / steps**0.5)
    return Pace(mean, slowest, balanced)


def _expected_maximum(counts: Sequence[int], means: Sequence[float], spread: float) -> float:
    """Of independent gamma variables with these means and the standard deviation over the mean `spread`: the integral
    of the probability that not all are below x."""
    from scipy.special import gammainc  # not before: it takes a while to import, and few scenarios have jitter

    shape = 1 / spread**2
    low = max(0.0, max(means) * (1 - _SPREADS * spread))
    at = np.linspace(low, max(means) * (1 + _SPREADS * spread), _POINTS)
    below = np.ones_like(at)
    for count, mean in zip(counts, means, strict=True):
        below *= gammainc(shape, at * shape / mean) ** count
    return low + float(np.trapezoid(1 - below, at))
