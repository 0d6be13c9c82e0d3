"""Fewer points of a curve: with the same picture, or with the same crossings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def extremes(values: Floats, most: int) -> Indices:
    """At most `most` indices of `values`, rising: both ends, and the least and the greatest of each bucket between."""
    count = len(values)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, max(1, (most - 2) // 2) + 1, dtype=int)
    kept = {0, count - 1}
    for start, end in pairwise(edges.tolist()):
        kept |= {start + int(np.argmin(values[start:end])), start + int(np.argmax(values[start:end]))}
    return np.array(sorted(kept))


def record_lows(losses: Floats) -> Indices:
    """Indices of the finite losses below all earlier ones, each with the finite one before it.

    A curve crosses any level for the first time between such a pair, so `reports.crossing` finds the same crossing in
    what is kept as in the whole curve.
    """
    finite = np.flatnonzero(np.isfinite(losses))
    known = losses[finite]
    before = np.concatenate(([np.inf], np.minimum.accumulate(known)[:-1])) if len(known) else known
    lows = np.flatnonzero(known < before)
    return finite[np.unique(np.concatenate((lows, lows[lows > 0] - 1)))]
