"""A thinned curve has the extremes of the whole one, or its crossings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reports.crossing import crossing
from reports.interactive.thinning import extremes, record_lows

LOSSES = st.lists(st.floats(1.0, 5.0) | st.just(float("nan")), max_size=40)


@given(LOSSES, st.floats(0.5, 5.5))
def test_record_lows_keep_every_crossing(losses: list[float], level: float) -> None:
    clock = [10.0 * index for index in range(len(losses))]
    kept = record_lows(np.array(losses, dtype=float))
    thinned = crossing([clock[at] for at in kept], [losses[at] for at in kept], level)
    assert thinned == crossing(clock, losses, level)


def test_a_rising_curve_needs_its_first_point_alone() -> None:
    assert record_lows(np.array([1.0, 2.0, 3.0])).tolist() == [0]


def test_thinning_keeps_ends_and_extremes() -> None:
    values = np.sin(np.arange(5000.0))
    kept = extremes(values, 300)
    assert len(kept) <= 300
    assert {0, 4999, int(values.argmin()), int(values.argmax())} <= set(kept.tolist())
