"""Intervals for values that come in groups: seeds within networks, sites within seeds.

Values of one group are not independent of each other: the same network, or the same initial weights, stands behind
them. So groups are drawn with replacement, and from each drawn group its values (Davison and Hinkley 1997, section 3.8;
Saravanan, Berman and Sober 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

RESAMPLES = 4999
_SEED = 20240229  # resampling is repeatable: the same records give the same report


@dataclass(frozen=True)
class Estimate:
    """The mean of the groups' means, with its 95 % interval, None below three values.

    n: values; groups: how many groups they come from.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int


def nested_estimate(groups: Sequence[Sequence[float]], level: float = 0.95) -> Estimate | None:
    """Of the finite values; None without one. A group without a finite value does not count.

    With one group only its values are drawn, so that the interval holds for that group alone.
    """
    finite = [np.array([v for v in group if isfinite(v)], dtype=float) for group in groups]
    finite = [group for group in finite if len(group)]
    if not finite:
        return None
    n = sum(len(group) for group in finite)
    value = float(np.mean([group.mean() for group in finite]))
    if n < 3:
        return Estimate(value, None, None, n, len(finite))
    drawn = np.random.default_rng(_SEED)
    # Means of every group in every resample, then the mean over the groups that were drawn.
    within = np.stack(
        [group[drawn.integers(len(group), size=(RESAMPLES, len(finite), len(group)))].mean(axis=2) for group in finite],
        axis=2,
    )  # (resample, place, group)
    chosen = drawn.integers(len(finite), size=(RESAMPLES, len(finite)))
    means = np.take_along_axis(within, chosen[:, :, None], axis=2)[:, :, 0].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n, len(finite))
