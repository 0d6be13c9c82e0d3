"""Human units. Inside, rates are bit/s, durations seconds, sizes bytes, probabilities 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_NUMBER = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%/]*)\s*$")

_RATES = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "Tbit": 1e12}
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_YEAR = 365 * 86_400.0
LEAST_RATE, MOST_RATE = 1e3, 1e15  # bit/s, of what is not zero
MOST_DURATION, MOST_SIZE = 10 * _YEAR, 10**18  # seconds, bytes

_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def _split(text: object, units: str) -> tuple[float, str]:
    match = _NUMBER.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a non-negative number with a unit ({units}), like {_example(units)}")
    return float(match[1]), match[2]


def _example(units: str) -> str:
    return f"'20 {units.split(', ')[1]}'"


def parse_rate(text: object) -> float:
    """'200 Mbit' or '200 Mbit/s' -> bit/s. Bytes per second are refused: 'MB' and 'Mb' are too easily confused."""
    units = ", ".join(_RATES)
    number, unit = _split(text, units)
    unit = unit.removesuffix("/s")
    if unit not in _RATES:
        raise ValueError(f"a rate in one of: {units} (optionally with /s)")
    rate = number * _RATES[unit]
    if rate and not LEAST_RATE <= rate <= MOST_RATE:
        raise ValueError(f"a rate from {show_rate(LEAST_RATE)} to {show_rate(MOST_RATE)}")
    return rate


def parse_duration(text: object) -> float:
    """'35 ms' -> seconds."""
    units = ", ".join(_DURATIONS)
    number, unit = _split(text, units)
    if unit not in _DURATIONS:
        raise ValueError(f"a duration in one of: {units}")
    if (seconds := number * _DURATIONS[unit]) > MOST_DURATION:
        raise ValueError(f"a duration of at most {show_duration(MOST_DURATION)}")
    return seconds


def rate_unit(unit: str) -> float:
    """Bit/s in one of `unit`, which may end in /s. ValueError for none."""
    if (scale := _RATES.get(unit.removesuffix("/s"))) is None:
        raise ValueError(f"a rate unit, one of: {', '.join(_RATES)} (optionally with /s)")
    return scale


def duration_unit(unit: str) -> float:
    """Seconds in one of `unit`. ValueError for none."""
    if (scale := _DURATIONS.get(unit)) is None:
        raise ValueError(f"a unit of time, one of: {', '.join(_DURATIONS)}")
    return scale


def parse_size(text: object) -> int:
    """'25 MB' -> bytes; must come out as a whole number of bytes."""
    units = ", ".join(_SIZES)
    number, unit = _split(text, units)
    if unit not in _SIZES:
        raise ValueError(f"a whole number of bytes in one of: {units}")
    if (size := number * _SIZES[unit]) > MOST_SIZE:
        raise ValueError(f"a size of at most {show_size(MOST_SIZE)}")
    if size != int(size):
        raise ValueError(f"a whole number of bytes in one of: {units}")
    return int(size)


def parse_share(value: object) -> float:
    """'0.5 %' or 0.005 -> 0.005."""
    if isinstance(value, str) and (match := _NUMBER.match(value)) and match[2] in ("%", ""):
        value = float(match[1]) / (100 if match[2] == "%" else 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a share between 0 and 1, or between 0 % and 100 %")
    return float(value)


def _at_most(most: float, shown: str) -> AfterValidator:
    def check(value: float) -> float:
        if value > most:
            raise ValueError(f"at most {shown}")
        return value

    return AfterValidator(check)


def _schema(units: Iterable[str], example: str, suffix: str = "") -> WithJsonSchema:
    """As a file has it: a number with its unit."""
    pattern = rf"^\s*[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*({'|'.join(units)}){suffix}\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


RATE_SCHEMA = _schema(_RATES, "200 Mbit", "(/s)?")
DURATION_SCHEMA = _schema(_DURATIONS, "35 ms")
SIZE_SCHEMA = _schema(_SIZES, "150 kB")
QUEUE_SCHEMA = _schema([*_SIZES, *_DURATIONS], "150 kB")
SHARE_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*%?\s*$", "examples": ["0.5 %"]},
        ]
    }
)

Rate = Annotated[float, BeforeValidator(parse_rate), RATE_SCHEMA]
Duration = Annotated[float, BeforeValidator(parse_duration), DURATION_SCHEMA]
Delay = Annotated[Duration, _at_most(60.0, "60 s")]  # what a packet may be held back
Moment = Annotated[Duration, _at_most(30 * 86_400.0, "30 d")]  # within a run
Size = Annotated[int, BeforeValidator(parse_size), SIZE_SCHEMA]
Share = Annotated[float, BeforeValidator(parse_share), SHARE_SCHEMA]


def show_rate(rate: float) -> str:
    """200e6 -> '200 Mbit/s'."""
    return _show(rate, _RATES) + "/s"


def show_size(size: float) -> str:
    """25_000_000 -> '25 MB'."""
    return _show(size, {unit: scale for unit, scale in _SIZES.items() if "i" not in unit})


def show_duration(seconds: float) -> str:
    """0.035 -> '35 ms'; 5400 -> '1.5 h'; 129600 -> '1.5 d'."""
    return _show(seconds, _DURATIONS)


def _show(value: float, units: dict[str, float] | dict[str, int]) -> str:
    unit, scale = next(iter(units.items()))
    for candidate, factor in units.items():
        if value >= factor:
            unit, scale = candidate, factor
    return f"{value / scale:.4g} {unit}"
