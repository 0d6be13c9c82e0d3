"""Importing mahimahi traces: one line per opportunity to send a packet of 1500 bytes, its time in milliseconds."""

from __future__ import annotations

from pathlib import Path

from netsim.errors import InputError

PACKET = 1504  # bytes that mahimahi lets pass at each opportunity: 1500 and its own header


def read_mahimahi(path: Path, every: float) -> list[float]:
    """Mean rate in each stretch of `every` seconds, bit/s. The trace repeats after its last line's time."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "", getattr(error, "strerror", "not text"), "a readable trace") from None
    times: list[int] = []
    for number, line in enumerate(lines, start=1):
        if line and (not line.isdigit() or (times and int(line) < times[-1])):
            raise InputError(str(path), f"line {number}", line, "milliseconds, not less than in the line before")
        if line:
            times.append(int(line))
    if not times or times[-1] == 0:
        raise InputError(str(path), "", "no time above zero", "at least one line with a time above zero")
    stretches = max(1, round(times[-1] / 1000 / every))
    counts = [0] * stretches
    for time in times:
        counts[min(stretches - 1, int(time / 1000 / every))] += 1
    return [count * PACKET * 8 / every for count in counts]
