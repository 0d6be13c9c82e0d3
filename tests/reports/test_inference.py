"""Power and nested intervals agree with what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reports.inference.hierarchical import nested_estimate
from reports.inference.power import detectable_effect, standardised_effect


@pytest.mark.parametrize(("n", "effect"), [(34, 0.5), (15, 0.78), (5, 1.68)])
def test_effects_are_those_of_the_tables(n: int, effect: float) -> None:
    """G*Power 3.1, paired t-test, two-sided, level 0.05, power 0.8: n = 34 for dz 0.5, 15 for 0.778, 5 for 1.68."""
    assert standardised_effect(n) == pytest.approx(effect, abs=0.01)


def test_a_test_finds_the_detectable_effect_four_times_in_five() -> None:
    effect = standardised_effect(5)
    assert effect is not None
    draws = np.random.default_rng(1).normal(effect, 1.0, size=(4000, 5))
    found = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.02)


def test_more_seeds_see_smaller_effects() -> None:
    effects = [standardised_effect(n) or 0.0 for n in range(2, 30)]
    assert effects == sorted(effects, reverse=True)
    assert standardised_effect(1) is None
    assert detectable_effect([0.1, 0.2]) is None
    assert detectable_effect([0.1, 0.2, 0.3]) == pytest.approx((standardised_effect(3) or 0.0) * 0.1)


def test_few_values_have_no_interval() -> None:
    found = nested_estimate([[1.0], [3.0]])
    assert found is not None
    assert (found.value, found.low, found.n, found.groups) == (2.0, None, 2, 2)
    assert nested_estimate([[float("nan")], []]) is None


def test_one_group_is_an_ordinary_bootstrap() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, 40).tolist()
    found = nested_estimate([values])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    expected = stats.bootstrap((np.array(values),), np.mean, method="percentile", rng=np.random.default_rng(3))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.05)


def test_values_of_a_group_are_not_independent() -> None:
    """Networks differ, seeds on one do not: many seeds must not make the interval over networks narrow."""
    groups = [[level + 0.01 * seed for seed in range(10)] for level in (0.0, 1.0, 2.0, 3.0)]
    nested, pooled = nested_estimate(groups), nested_estimate([[value for group in groups for value in group]])
    assert nested is not None
    assert pooled is not None
    widths = [(one.high or 0.0) - (one.low or 0.0) for one in (nested, pooled)]
    assert widths[0] > 2 * widths[1]
    assert nested.value == pytest.approx(pooled.value)
