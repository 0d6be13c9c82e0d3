"""Human units are read exactly, and refused when they could mean two things."""

from collections.abc import Callable

import pytest

from netsim.units import parse_duration, parse_rate, parse_share, parse_size, show_duration, show_rate, show_size


@pytest.mark.parametrize(
    ("text", "bits"),
    [("200 Mbit", 200e6), ("1 Gbit/s", 1e9), ("64kbit", 64e3), ("0.5 Gbit", 5e8), ("1e3 bit", 1e3)],
)
def test_a_rate_is_read_in_bits_per_second(text: str, bits: float) -> None:
    assert parse_rate(text) == bits


@pytest.mark.parametrize(
    "text", ["200", 200, "200 MB", "200 Mb", "200 Mbps", "-5 Mbit", "fast", "", None, True, "1 mbit"]
)
def test_a_rate_without_a_clear_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="Mbit"):
        parse_rate(text)


def test_durations_sizes_and_shares_come_out_in_si_units() -> None:
    assert parse_duration("35 ms") == pytest.approx(0.035)
    assert parse_duration("1.5 h") == 5400
    assert parse_size("25 MB") == 25_000_000
    assert parse_size("1 MiB") == 1_048_576
    assert parse_share("0.5 %") == 0.005
    assert parse_share(0.25) == 0.25


@pytest.mark.parametrize("value", [1.5, -0.1, "120 %", "one", True, None])
def test_a_share_outside_zero_to_one_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        parse_share(value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_size, "1e400 B"), (parse_size, "1e300 TB"), (parse_duration, "1e308 h"), (parse_rate, "1e308 Tbit")],
)
def test_a_number_too_large_is_refused(parse: Callable[[object], float], text: str) -> None:
    with pytest.raises(ValueError, match="at most|to"):
        parse(text)


def test_a_fraction_of_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.5 B")


def test_numbers_are_shown_in_natural_units() -> None:
    """Numbers are shown in the unit that a person would choose."""
    assert show_rate(200e6) == "200 Mbit/s"
    assert show_size(6_291_456) == "6.291 MB"
    assert show_duration(0.035) == "35 ms"
    assert show_duration(5400) == "1.5 h"
