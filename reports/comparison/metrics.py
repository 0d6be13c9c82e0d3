"""What two sets of records are compared by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Literal

from netsim.errors import InputError
from netsim.units import show_duration, show_size


@dataclass(frozen=True)
class Metric:
    """kind: how B is set against A: by its difference, or by its ratio."""

    key: str  # as thresholds name it
    column: str
    heading: str
    short: str  # above a narrow panel
    kind: Literal["difference", "ratio"]

    def change(self, a: float, b: float) -> float:
        """B - A, or log(B / A), which adds up; NaN where there is none."""
        if not (isfinite(a) and isfinite(b)):
            return float("nan")
        if self.kind == "difference":
            return b - a
        return log(b / a) if a > 0 and b > 0 else 0.0 if a == b else float("nan")

    def shown(self, change: float) -> float:
        """A change as thresholds and tables have it: a difference, or a ratio."""
        return change if self.kind == "difference" else exp(change)

    def value_text(self, value: float | None) -> str:
        """A value of one side."""
        if value is None or not isfinite(value):
            return "–"
        if self.key == "loss":
            return f"{value:.3f}"
        if self.key == "cu":
            return f"{value:.0%}"
        return show_size(value) if self.key == "bytes" else show_duration(value)

    def change_text(self, change: float) -> str:
        """A change, signed or as a factor."""
        if self.key == "cu":
            return f"{100 * change:+.1f} points"
        return f"{change:+.4f}" if self.kind == "difference" else f"×{exp(change):.3f}"


METRICS = (
    Metric("loss", "final_loss", "final loss (nats)", "final loss", "difference"),
    Metric("time-to-loss", "seconds_to_level", "time to loss", "time to loss", "ratio"),
    Metric("wall", "wall_seconds", "wall time", "wall time", "ratio"),
    Metric("bytes", "payload_bytes_per_worker", "payload per worker", "payload", "ratio"),
    Metric("cu", "compute_utilisation", "compute utilisation", "utilisation", "difference"),
)
_THRESHOLD = re.compile(r"([a-z-]+)\s*([<>])\s*([-+]?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Threshold:
    """A change that fails the comparison, like wall>1.1 (a ratio) or loss>0.02 (a difference)."""

    metric: Metric
    above: bool
    bound: float

    @property
    def text(self) -> str:
        return f"{self.metric.key}{'>' if self.above else '<'}{self.bound:g}"

    def crossed(self, change: float) -> bool:
        shown = self.metric.shown(change)
        return shown > self.bound if self.above else shown < self.bound


def threshold_from(text: str) -> Threshold:
    """InputError for what is no threshold."""
    match = _THRESHOLD.fullmatch(text.strip())
    names = {metric.key: metric for metric in METRICS}
    if match is None:
        raise InputError("--fail-if", "", text, f"METRIC>NUMBER or METRIC<NUMBER, METRIC one of {', '.join(names)}")
    if match[1] not in names:
        raise InputError.unknown("--fail-if", "", match[1], names)
    return Threshold(names[match[1]], match[2] == ">", float(match[3]))
