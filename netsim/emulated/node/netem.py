"""The netem engine: an impairment as arguments of `tc qdisc ... netem`, and back from the JSON of `tc`."""

from __future__ import annotations

import math
import zlib
from typing import Any

from netsim.emulated.node.impairments import pareto_moments
from netsim.emulated.plan import Impairment

# netem's own tables; without one it draws uniformly.
_TABLES = {"normal": "normal", "pareto": "pareto"}


ORDERING_RATE = 32_000_000_000
_SMALLEST = 64  # bytes of a frame
_MOST_PACKETS = 1 << 20
SEEDED_SINCE = (6, 6)  # of Linux and of iproute2


def netem_limit(impairment: Impairment, rate: float) -> int:
    """Packets that netem must be able to hold: the smallest ones, arriving at `rate` for the longest delay.

    Nothing queues here; the default of 1000 caps a path of 50 ms at 242 Mbit/s.
    """
    longest = impairment.delay + 5 * impairment.spread
    return min(_MOST_PACKETS, math.ceil(1.5 * rate * longest / 8 / _SMALLEST) + 1000)


def netem_arguments(impairment: Impairment, rate: float, *, seeded: bool) -> str:
    """The whole state of the link, always: a parameter that is left out would be reset or kept at the kernel's whim.

    rate: at which packets can arrive, bit/s; seeded: whether tc and the kernel take a seed.
    """
    delay, spread = _delay_and_spread(impairment)
    parts = [f"netem limit {netem_limit(impairment, rate)}", f"delay {_us(delay)}"]
    if spread:
        parts.append(_us(spread))
        if table := _TABLES.get(impairment.distribution):
            parts.append(f"distribution {table}")
        if not impairment.reorder:
            # With a rate, netem sends no packet before the one ahead of it; this one is too high to be felt.
            parts.append(f"rate {ORDERING_RATE}bit")
    if impairment.bursty:
        parts.append(
            f"loss gemodel {_percent(impairment.to_bad)} {_percent(impairment.to_good)} "
            f"{_percent(impairment.loss_in_bad)} {_percent(impairment.loss_in_good)}"
        )
    elif impairment.loss_in_good:
        parts.append(f"loss random {_percent(impairment.loss_in_good)}")
    if impairment.duplicate:
        parts.append(f"duplicate {_percent(impairment.duplicate)}")
    if seeded:
        parts.append(f"seed {netem_seed(impairment)}")
    return " ".join(parts)


def _delay_and_spread(impairment: Impairment) -> tuple[float, float]:
    """In terms of netem's tables, whose Pareto has neither mean zero nor deviation one."""
    delay, spread = impairment.delay, impairment.spread
    if impairment.distribution == "pareto":
        mean, deviation = pareto_moments()
        spread /= deviation
        delay -= mean * spread
    return delay, spread


def netem_seed(impairment: Impairment) -> int:
    """A seed of the link's own."""
    return zlib.crc32(impairment.seed.encode())


def netem_expected(impairment: Impairment, rate: float) -> dict[str, float]:
    """What `netem_state` must return."""
    delay, spread = _delay_and_spread(impairment)
    bursty = impairment.bursty
    return {
        "limit": float(netem_limit(impairment, rate)),
        "delay": delay,
        "spread": spread,
        "loss": 0.0 if bursty else impairment.loss_in_good,
        "to_bad": impairment.to_bad if bursty else 0.0,
        "to_good": impairment.to_good if bursty else 0.0,
        "duplicate": impairment.duplicate,
    }


def netem_state(entry: dict[str, Any]) -> dict[str, float]:
    """Delay, spread (seconds) and probabilities from an entry of `tc -j qdisc show`."""
    options = entry.get("options", {})
    delay = options.get("delay", {})
    gemodel, random = options.get("loss-gemodel", {}), options.get("loss-random", {})
    return {
        "limit": float(options.get("limit", 0)),
        "delay": float(delay.get("delay", 0.0)),
        "spread": float(delay.get("jitter", 0.0)),
        "loss": float(random.get("loss", 0.0)),
        "to_bad": float(gemodel.get("p", 0.0)),
        "to_good": float(gemodel.get("r", 0.0)),
        "duplicate": float(options.get("duplicate", {}).get("duplicate", 0.0)),
    }


def _us(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"


def _percent(share: float) -> str:
    return f"{share * 100:.6g}%"
