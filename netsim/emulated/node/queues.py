"""Queues ahead of a bottleneck by their kind: arguments of `tc qdisc`, and what its JSON must say of them."""

from __future__ import annotations

import math
from typing import Any

from netsim.emulated.plan import QueueControl
from netsim.framing import ETHERNET

MANAGED = ("fq_codel", "red")
_LEAST_MEMORY, _MOST = 32 * 2**20, 2**32 - 1


def queue_arguments(room: int, control: QueueControl | None, rate: float, mtu: int) -> str:
    """A queue of `room` bytes ahead of `rate` bit/s, with everything that a change could leave as it was."""
    if control is None:
        return f"bfifo limit {room}"
    frame, mark = mtu + ETHERNET, "ecn" if control.ecn else ""
    if control.kind == "fq_codel":
        # The kernel bounds it in packets, each one frame here, and in memory; a frame takes about twice its size.
        memory = min(_MOST, max(_LEAST_MEMORY, 4 * room))
        return (
            f"fq_codel limit {_frames(room, mtu)} target {_us(control.target)} interval {_us(control.interval)} "
            f"quantum {frame} memory_limit {memory} {mark or 'noecn'}"
        )
    # What tc's manual recommends, and never less than its arithmetic takes.
    together = max((2 * control.least + control.most) // (3 * frame), math.ceil(control.least / frame))
    return (
        f"red limit {room} min {control.least} max {control.most} avpkt {frame} burst {together} "
        f"probability {control.probability:.6g} bandwidth {round(rate)}bit {mark}"
    ).rstrip()


def queue_expected(room: int, control: QueueControl | None, mtu: int) -> str | dict[str, float]:
    """What `queue_state` must return."""
    if control is None:
        return f"bfifo limit {room}"
    marks = float(control.ecn)
    if control.kind == "fq_codel":
        limit, target, interval = float(_frames(room, mtu)), control.target, control.interval
        return {"fq_codel": 1.0, "limit": limit, "target": target, "interval": interval, "ecn": marks}
    return {"red": 1.0, "limit": float(room), "min": float(control.least), "max": float(control.most), "ecn": marks}


def queue_state(entry: dict[str, Any]) -> str | dict[str, float]:
    """From an entry of `tc -j qdisc show`."""
    kind, options = entry["kind"], entry.get("options", {})
    if kind not in MANAGED:
        return f"{kind} limit {options['limit']}" if kind == "bfifo" else str(kind)
    scales = {"limit": 1.0, **({"target": 1e-6, "interval": 1e-6} if kind == "fq_codel" else {"min": 1.0, "max": 1.0})}
    numbers = {name: float(options.get(name, 0)) * scale for name, scale in scales.items()}
    return {kind: 1.0, **numbers, "ecn": float(bool(options.get("ecn")))}


def _frames(room: int, mtu: int) -> int:
    return max(2, room // (mtu + ETHERNET))


def _us(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"
