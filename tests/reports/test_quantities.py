"""Numbers are shown with three digits, a unit, and one unit for a whole column."""

from __future__ import annotations

import math

import pytest

from reports.style.quantities import NARROW, axis_scale, digits, scale_for, show, show_p


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.012345, "0.0123"), (9.996, "10.0"), (41.23, "41.2"), (999.6, "1 000"), (1234567.0, "1 230 000")],
)
def test_three_significant_digits_without_an_exponent(value: float, text: str) -> None:
    assert digits(value) == text.replace(" ", NARROW)


def test_missing_numbers_are_a_dash() -> None:
    assert digits(math.nan) == show(None, "s") == show(math.inf, "B") == "–"


@pytest.mark.parametrize(
    ("value", "quantity", "text"),
    [(41.23, "s", "41.2 s"), (0.0351, "s", "35.1 ms"), (25e6, "B", "25.0 MB"), (1e9, "bit/s", "1.00 Gbit/s")],
)
def test_a_quantity_has_the_unit_that_fits(value: float, quantity: str, text: str) -> None:
    assert show(value, quantity) == text.replace(" ", NARROW)


def test_a_column_has_the_unit_of_its_largest_value() -> None:
    scale = scale_for("B", [3.0, 5e6, None, 2e9])
    assert (scale.unit, scale.of(5e6)) == ("GB", "0.00500")


def test_a_logarithmic_axis_has_the_unit_of_its_middle() -> None:
    assert axis_scale("bit/s", [10e6, 100e6, 1e9]).unit == "Mbit/s"


def test_small_p_values_are_not_shown_as_zero() -> None:
    assert [show_p(p) for p in (None, 0.0001, 0.0123, 0.25)] == ["–", "< 0.001", "0.012", "0.25"]
