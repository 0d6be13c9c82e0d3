"""The netem engine: an impairment as arguments of `tc qdisc ... netem`, and back from what `tc -j` reports."""

from __future__ import annotations

import math
import zlib
from typing import Any

from netsim.emulated.node.impairments import pareto_moments
from netsim.emulated.plan import Impairment
from netsim.framing import ETHERNET

# netem's own tables; without one it draws uniformly.
_TABLES = {"normal": "normal", "pareto": "pareto"}


ORDERING_RATE = 32_000_000_000


def netem_limit(impairment: Impairment, rate: float, queue: int, mtu: int) -> int:
    """Packets that netem must be able to hold: those under way for the longest delay, and the queue ahead of the rate.

    The default of 1000 caps a path of 50 ms at 242 Mbit/s.
    """
    longest = impairment.delay + 5 * impairment.spread
    return math.ceil(1.5 * rate * longest / 8 / (mtu + ETHERNET)) + math.ceil(queue / (mtu + ETHERNET)) + 1000


def netem_arguments(impairment: Impairment, rate: float, queue: int, mtu: int) -> str:
    """The whole state of the link, always: a parameter that is left out would be reset or kept at the kernel's whim."""
    delay, spread = impairment.delay, impairment.spread
    if impairment.distribution == "pareto":
        mean, deviation = pareto_moments()
        spread /= deviation
        delay -= mean * spread
    parts = [f"netem limit {netem_limit(impairment, rate, queue, mtu)}", f"delay {_us(delay)}"]
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
    return " ".join(parts)


def netem_seed(impairment: Impairment) -> int:
    """A seed for kernels that take one (6.6 and later)."""
    return zlib.crc32(impairment.seed.encode())


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
