"""Guidance by coverage: Hypothesis prefers the inputs that get further into our code, and mutates those."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import target

PACKAGES = tuple(
    f"{Path(__file__).parents[2] / package}/" for package in ("netsim", "algorithms", "harness", "reports")
)


def lines_of(call: Callable[[], object]) -> int:
    """How many different lines of our packages a call runs; what it raises is raised."""
    seen: set[tuple[str, int]] = set()

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def entered(frame: FrameType, _: str, __: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(PACKAGES) else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    finally:
        sys.settrace(before)
    return len(seen)


def guided(read: Callable[[], object], refusal: type[Exception]) -> None:
    """Read, or refused with `refusal`; how far it came is what Hypothesis is to make more of."""

    def read_or_refused() -> None:
        with suppress(refusal):
            read()

    target(float(lines_of(read_or_refused)), label="lines of our code")
