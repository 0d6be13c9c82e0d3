"""Small numbers of runs are summed up without flattery."""

from __future__ import annotations

import math

import pytest

from reports.statistics import check_convergence, compare, summarise


def test_a_summary_is_the_median_with_its_quartiles() -> None:
    found = summarise([4.0, 1.0, 2.0, 3.0, 5.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.n) == (3.0, 2.0, 4.0, 5)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_one_missing_value_leaves_no_median(missing: float | None) -> None:
    assert summarise([1.0, missing, 2.0]) is None
    assert summarise([]) is None


def test_the_ratio_is_the_median_over_pairs() -> None:
    """The ratio is the median over pairs not the ratio of medians."""
    found = compare([2.0, 30.0, 400.0], [1.0, 10.0, 100.0])
    assert found is not None
    assert found.ratio == pytest.approx(3.0)
    assert found.low is not None
    assert found.high is not None
    assert 2.0 <= found.low <= 3.0 <= found.high <= 4.0


def test_three_agreeing_pairs_have_the_smallest_possible_p() -> None:
    """Three pairs that agree have the smallest p that three pairs can have."""
    found = compare([2.0, 2.1, 2.2], [1.0, 1.0, 1.0])
    assert found is not None
    assert found.p == pytest.approx(found.p_floor) == 0.25


def test_eight_pairs_are_significant_only_if_they_agree() -> None:
    """Eight pairs that agree are significant and eight that do not are not."""
    agreeing = compare([2.0 + 0.01 * i for i in range(8)], [1.0] * 8)
    mixed = compare([1.1, 0.9, 1.2, 0.8, 1.05, 0.95, 1.0, 1.0], [1.0] * 8)
    assert agreeing is not None
    assert mixed is not None
    assert agreeing.p == pytest.approx(2 / 2**8)
    assert mixed.p is not None
    assert mixed.p > 0.5


def test_one_pair_has_a_ratio_and_neither_interval_nor_p() -> None:
    found = compare([3.0], [2.0])
    assert found is not None
    assert found.ratio == pytest.approx(1.5)
    assert (found.low, found.p, found.n) == (None, None, 1)


def test_pairs_with_a_missing_or_senseless_side_do_not_count() -> None:
    assert compare([math.nan, 1.0, 0.0], [1.0, math.nan, 1.0]) is None


def test_resampling_is_repeatable() -> None:
    values = [1.3, 1.1, 1.7, 1.2, 1.4]
    assert compare(values, [1.0] * 5) == compare(values, [1.0] * 5)


def test_beating_the_reference_beyond_seed_spread_is_flagged() -> None:
    """A method that beats its reference beyond the seeds spread is suspicious."""
    reference = [2.00, 2.02, 1.98, 2.01]
    assert check_convergence(reference, [1.80, 1.83, 1.77, 1.82]).suspicious
    assert check_convergence(reference, [2.05, 2.06, 2.02, 2.07]).suspicious is False
    assert check_convergence(reference, [2.03, 1.99, 1.97, 2.01]).suspicious is False
    assert check_convergence(reference, reference).suspicious is False
    assert check_convergence(reference, reference).detectable == 0.0
    # A spread of 0.0096, and 2.93 standard deviations for 4 pairs, one-sided at 1 %.
    assert check_convergence(reference, [2.05, 2.06, 2.02, 2.07]).detectable == pytest.approx(0.0281, abs=2e-4)


def test_two_seeds_cannot_show_that_a_method_is_too_good() -> None:
    found = check_convergence([2.0, 2.1], [1.0, 1.1])
    assert found.suspicious is None
    assert found.difference == pytest.approx(-1.0)
