"""Medians, spreads and paired comparisons of small numbers of runs.

A bare mean of three runs says little, so everything here is a median with its quartiles, and comparisons are paired:
the same seed means the same data order and the same faults for every method. Runs that share a seed are not
independent; count seeds, not runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from reports.inference.power import detectable_effect

RESAMPLES = 9999
_SEED = 20240229  # resampling is repeatable: the same records give the same report

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of `n` values."""

    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """How many times larger the reference's values are than the candidate's, over `n` pairs.

    ratio: median of the pairs' ratios.   low, high: 95 % bootstrap interval of that median, None below three pairs.
    p: two-sided sign-flip permutation test of the mean log ratio, None below two pairs; it cannot fall below `p_floor`.
    """

    ratio: float
    low: float | None
    high: float | None
    p: float | None
    n: int

    @property
    def p_floor(self) -> float:
        return float(2.0 ** (1 - self.n))


def summarise(values: Sequence[float | None]) -> Quartiles | None:
    """Of the finite values; None when one is missing, for a median without the worst would flatter."""
    if not values or any(value is None or not np.isfinite(value) for value in values):
        return None
    numbers = np.asarray(values, dtype=float)
    low, median, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    return Quartiles(float(median), float(low), float(high), len(numbers))


def compare(reference: Sequence[float], candidate: Sequence[float]) -> Comparison | None:
    """Paired ratios reference / candidate of positive values; None without a pair."""
    a, b = np.asarray(reference, dtype=float), np.asarray(candidate, dtype=float)
    assert a.shape == b.shape
    kept = np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)
    logs = np.log(a[kept] / b[kept])
    if not len(logs):
        return None
    low = high = p = None
    if len(logs) >= 2:
        p = _sign_flip(logs)
    if len(logs) >= 3:
        low, high = (float(np.exp(end)) for end in _interval(logs))
    return Comparison(float(np.exp(np.median(logs))), low, high, p, len(logs))


def _sign_flip(differences: Floats) -> float:
    """Exact up to 13 pairs (all 2^n signs), sampled above (Pitman 1937; Good 2005, chapter 3)."""

    def mean(x: Floats, y: Floats, axis: int) -> Any:
        return np.mean(x - y, axis=axis)

    test = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    return float(test.pvalue)


def _interval(values: Floats) -> tuple[float, float]:
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(_SEED)
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Range:
    """Bounds of a ratio of two times that lie between two evaluations each; high may be infinite."""

    low: float
    high: float


def ratio_range(reference: Sequence[tuple[float, float]], candidate: Sequence[tuple[float, float]]) -> Range | None:
    """Medians over pairs of the least and largest reference / candidate, from (low, high) of each; None without."""
    ends = [
        (low / most if most > 0 else 0.0, high / least if least > 0 else float("inf"))
        for (low, high), (least, most) in zip(reference, candidate, strict=True)
    ]
    if not ends:
        return None
    return Range(float(np.median([low for low, _ in ends])), float(np.median([high for _, high in ends])))


@dataclass(frozen=True)
class Convergence:
    """Whether a method ends below its reference's loss by more than chance allows.

    A method that sends less can at best match its reference; one that beats it by more than the seeds' spread points
    to a fault in one of the two (other data, other batch, evaluation on what was trained on), or to a discovery.
    `suspicious` is None where it cannot be tested. The idea is MLPerf's reference convergence points.
    """

    difference: float | None  # median of candidate minus reference, nats per token
    p: float | None  # one-sided paired t-test: candidate < reference
    n: int
    suspicious: bool | None
    detectable: float | None = None  # nats per token: the smallest difference that n seeds see, at a power of 0.8


def check_convergence(reference: Sequence[float], candidate: Sequence[float], level: float = 0.01) -> Convergence:
    """`reference` and `candidate`: final losses paired by seed, one pair for each seed."""
    differences = np.asarray(candidate, dtype=float) - np.asarray(reference, dtype=float)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    median = float(np.median(differences)) if n else None
    if n < 3:
        return Convergence(median, None, n, None)
    if np.ptp(differences) == 0:
        p = 1.0 if differences[0] >= 0 else 0.0
    else:
        p = float(stats.ttest_1samp(differences, 0.0, alternative="less").pvalue)
    return Convergence(median, p, n, p < level, detectable_effect(differences.tolist(), level=2 * level))
