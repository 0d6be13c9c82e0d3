"""When a curve of held-out losses reaches a loss, between the evaluations that bracket it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Crossing:
    """The training clock at which a loss is reached, in seconds.

    seconds: linear interpolation between two evaluations. low, high: the clock at these two; the crossing lies between
    them whatever the curve does. at_first: the first evaluation is below already, so that only `high` is known:
    `seconds` is then `high`, an upper bound, and `low` is 0.
    """

    seconds: float
    low: float
    high: float
    at_first: bool


def crossing(clock: Sequence[float], losses: Sequence[float], level: float) -> Crossing | None:
    """The first time that `losses`, evaluated at `clock` (seconds, rising), is at or below `level`; None if never."""
    before: tuple[float, float] | None = None
    for seconds, loss in zip(clock, losses, strict=True):
        if not isfinite(loss):
            continue
        if loss <= level:
            if before is None:
                return Crossing(seconds, 0.0, seconds, at_first=True)
            start, above = before
            share = (above - level) / (above - loss)
            return Crossing(start + share * (seconds - start), start, seconds, at_first=False)
        before = (seconds, loss)
    return None
