"""Numbers for people: three digits, a unit, and one unit for a whole column or axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, isfinite, log10, sqrt

NARROW = "\u202f"  # narrow no-break space, between a number and its unit

_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (3600.0, "h")),
    "B": ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")),
    "bit/s": ((1.0, "bit/s"), (1e3, "kbit/s"), (1e6, "Mbit/s"), (1e9, "Gbit/s"), (1e12, "Tbit/s")),
    "tokens": ((1.0, "tokens"), (1e3, "thousand tokens"), (1e6, "million tokens"), (1e9, "billion tokens")),
    "%": ((0.01, "%"),),
}


@dataclass(frozen=True)
class Scale:
    """A unit to print in: `value / factor` of `unit`."""

    factor: float
    unit: str

    def of(self, value: float) -> str:
        return digits(value / self.factor)


def scale_for(quantity: str, values: Iterable[float | None]) -> Scale:
    """One unit for all `values` of a quantity ("s", "B", "bit/s", "tokens", "%", or anything without prefixes)."""
    steps = _SCALES.get(quantity, ((1.0, quantity),))
    largest = max((abs(v) for v in values if v is not None and isfinite(v)), default=0.0)
    factor, unit = steps[0] if largest > 0 else next(((f, u) for f, u in steps if f == 1.0), steps[0])
    for candidate, name in steps:
        threshold = (
            candidate if name != "h" else 3 * candidate
        )  # "7200 s" reads better than "2 h" in a table of seconds
        if largest >= threshold:
            factor, unit = candidate, name
    return Scale(factor, unit)


def axis_scale(quantity: str, values: Iterable[float]) -> Scale:
    """One unit for a logarithmic axis: that of its middle."""
    positive = [value for value in values if isfinite(value) and value > 0]
    return scale_for(quantity, [sqrt(min(positive) * max(positive))] if positive else [])


def show(value: float | None, quantity: str) -> str:
    """41.23, "s" -> '41.2 s'; None -> '–'."""
    if value is None or not isfinite(value):
        return "–"
    scale = scale_for(quantity, [value])
    return f"{scale.of(value)}{NARROW}{scale.unit}".rstrip()


def digits(value: float, count: int = 3) -> str:
    """`count` significant digits without an exponent: 0.01234 -> '0.0123', 1234567 -> '1 234 567'."""
    if not isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = count - 1 - floor(log10(abs(value)))
    rounded = round(value, places)
    places = count - 1 - floor(log10(abs(rounded))) if rounded else places
    return f"{rounded:,.{max(0, min(places, 9))}f}".replace(",", NARROW)


def show_p(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
