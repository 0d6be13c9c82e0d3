"""Measured rates, delays and round-trip times from files: a time series becomes one value per stretch of equal length.

Two forms: mahimahi's, one line of milliseconds per packet that may pass; and two columns, a time and the value that
holds from then on. Both repeat from their start when they run out, and keep their period and mean.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from netsim.documents import Document, validate
from netsim.errors import InputError, Phrase
from netsim.text_files import parse_number, read_rows
from netsim.units import MOST_RATE, Moment, duration_unit, rate_unit

PACKET = 1504  # bytes that mahimahi lets pass at each opportunity: 1500 and its own header
EMPTY_RATE = 8_000.0  # bit/s: the least of a stretch, since shapers have no zero
LONGEST_DELAY = 60.0  # seconds, as of a link
MOST_VALUES = 100_000
_MILLISECONDS = re.compile("[0-9]{1,12}")
_MAHIMAHI = "a mahimahi trace: a time in milliseconds per line"
_COLUMNS = "two columns: a time, and the value from then on"

Series = tuple[list[float], float]  # one value per stretch, and the length of a stretch in seconds


class TraceFile(Document):
    """A file of values, as a `trace` of a timeline names it.

    values: what the file has: `mahimahi`, or two columns of which the second is a `rate`, a one-way `delay` or an `rtt`
    (of which each direction has half). unit: of the second column; Mbit or ms if not given. time: of the first.
    every: the length of a stretch, about.
    """

    file: str
    values: Literal["mahimahi", "rate", "delay", "rtt"] = "mahimahi"
    unit: str | None = None
    time: Literal["us", "ms", "s", "min", "h"] = "s"
    every: Moment = Field(default=0.1, gt=0)


def expand_trace(trace: dict[str, Any], folder: Path, where: str, field: str) -> dict[str, Any]:
    """A trace of a document with the values of the file that it names, which is relative to `folder`, in its place."""
    if given := next((name for name in ("rates", "delays") if name in trace), None):
        raise InputError(where, field, f"file and {given}", "one of them")
    asked = {key: value for key, value in trace.items() if key in TraceFile.model_fields}
    described = validate(TraceFile, asked, where, field)
    kept = {key: value for key, value in trace.items() if key not in asked}
    path = folder / described.file
    if described.values == "mahimahi":
        if unwanted := next((key for key in ("unit", "time") if key in trace), None):
            raise InputError(where, f"{field}.{unwanted}", trace[unwanted], "values: rate, delay or rtt beside it")
        values, step = read_mahimahi(path, described.every)
    else:
        values, step = read_columns(path, described, where, field)
    every = f"{step!r} s"
    if described.values in ("mahimahi", "rate"):
        return {**kept, "rates": [f"{rate:.3f} bit" for rate in values], "every": every}
    share = 0.5 if described.values == "rtt" else 1.0
    return {**kept, "delays": [f"{delay * share * 1e6:.3f} us" for delay in values], "every": every}


def read_mahimahi(path: Path, every: float) -> Series:
    """Mean rates of a trace's stretches, bit/s, and the length of a stretch, seconds: about `every`.

    The trace repeats after its last line's time, so the stretches divide that period evenly, and the mean of their
    rates is the trace's. A trace shorter than one and a half stretches has one rate. A stretch without any packet has
    `EMPTY_RATE`, which the others give up.
    """
    times: list[int] = []
    for number, cells in read_rows(path, _MAHIMAHI):
        if len(cells) != 1 or not _MILLISECONDS.fullmatch(cells[0]) or (times and int(cells[0]) < times[-1]):
            found = " ".join(cells)[:40]
            raise InputError(str(path), f"line {number}", found, "milliseconds, not less than in the line before")
        times.append(int(cells[0]))
    if not times or times[-1] == 0:
        raise InputError(str(path), "", Phrase("no time above zero"), "at least one line with a time above zero")
    period = times[-1]  # ms
    stretches = _stretches(period / 1000, every, path)
    step = period / 1000 / stretches
    counts = [0] * stretches
    for time in times:  # the packet of millisecond t passes in (t - 1, t]
        counts[max(0, (time * stretches - 1) // period)] += 1
    rates = [count * PACKET * 8 / step for count in counts]
    return _above_zero(rates), max(step, every) if stretches == 1 else step


def read_columns(path: Path, described: TraceFile, where: str, field: str) -> Series:
    """Mean values of the stretches of a two-column file, in bit/s or seconds.

    A value holds until the next row's time, the last one for as long as the one before it. Rows may be preceded by one
    of headings. Rates below `EMPTY_RATE` are raised to it, and the others give it up.
    """
    is_rate = described.values == "rate"
    try:
        scale = rate_unit(described.unit or "Mbit") if is_rate else duration_unit(described.unit or "ms")
    except ValueError as error:
        raise InputError(where, f"{field}.unit", described.unit, str(error)) from None
    most, bound = (MOST_RATE, f"{MOST_RATE:g} bit/s") if is_rate else (LONGEST_DELAY, f"{LONGEST_DELAY:g} s")
    times: list[float] = []
    values: list[float] = []
    rows = read_rows(path, _COLUMNS)
    if rows and len(rows[0][1]) == 2 and not any(parse_number(cell) is not None for cell in rows[0][1]):
        rows = rows[1:]  # headings
    for number, cells in rows:
        numbers = [parse_number(cell) for cell in cells]
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            raise InputError(str(path), f"line {number}", " ".join(cells)[:40], f"{_COLUMNS}, in numbers without units")
        time, value = numbers[0] * duration_unit(described.time), numbers[1] * scale
        if times and time <= times[-1]:
            raise InputError(str(path), f"line {number}", cells[0], "a later time than in the row before")
        if not value <= most:
            raise InputError(str(path), f"line {number}", cells[1], f"at most {bound}")
        times.append(time)
        values.append(value)
    if len(times) < 2:
        raise InputError(str(path), "", Phrase(f"{len(times)} rows of numbers"), "two rows or more")
    edges = [time - times[0] for time in (*times, times[-1] + (times[-1] - times[-2]))]
    stretches = _stretches(edges[-1], described.every, path)
    means = _means(edges, values, stretches)
    step = edges[-1] / stretches
    return _above_zero(means) if is_rate else means, max(step, described.every) if stretches == 1 else step


def _stretches(period: float, every: float, path: Path) -> int:
    stretches = max(1, round(period / every))
    if stretches > MOST_VALUES:
        raise InputError(str(path), "", Phrase(f"{stretches} stretches"), f"at most {MOST_VALUES}; a longer `every`")
    return stretches


def _means(edges: list[float], values: list[float], stretches: int) -> list[float]:
    """Means over equal stretches of the function that has values[i] from edges[i] to edges[i + 1]."""
    areas = [0.0]
    for value, (start, end) in zip(values, pairwise(edges), strict=True):
        areas.append(areas[-1] + value * (end - start))

    def area(time: float) -> float:
        index = min(bisect_right(edges, time), len(values)) - 1
        return areas[index] + values[index] * (time - edges[index])

    cuts = [edges[-1] * index / stretches for index in range(stretches)]
    sums = [*map(area, cuts), areas[-1]]
    return [max(0.0, end - start) * stretches / edges[-1] for start, end in pairwise(sums)]


def _above_zero(rates: list[float]) -> list[float]:
    """The same with the least rates raised to `EMPTY_RATE`, at the expense of the others: the mean stays."""
    low, high = [rate for rate in rates if rate < EMPTY_RATE], [rate for rate in rates if rate >= EMPTY_RATE]
    if not low:
        return rates
    given, total = EMPTY_RATE * len(low) - sum(low), sum(high)
    if len(rates) == 1 or given >= total - EMPTY_RATE * len(high):
        return [sum(rates) / len(rates)] * len(rates)
    # What is above the least is shared out in proportion, so that nobody falls below it.
    kept = 1 - given / (total - EMPTY_RATE * len(high))
    return [EMPTY_RATE + (rate - EMPTY_RATE) * kept if rate >= EMPTY_RATE else EMPTY_RATE for rate in rates]
