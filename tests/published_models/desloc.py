"""DES-LOC (arXiv 2505.22549): parameters and both moments synchronised with periods of their own."""

from __future__ import annotations

from math import log


def volume(*periods: int) -> float:
    """Volume per step in units of the model's size: 1/K_x + 1/K_u + 1/K_v. One period of 1 is data-parallel training,
    one of H is DiLoCo, three of K are LocalAdam."""
    return sum(1 / period for period in periods)


def half_life(beta: float) -> float:
    """Steps after which a moment has lost half of what it held: the paper's guide to choosing its period."""
    return log(0.5) / log(beta)


def wall_seconds(
    *,
    compute: float,
    steps: float,
    periods: tuple[int, ...],
    parameters: float,
    bits: float,
    bandwidth: float,
    workers: int,
    latency: float = 0.0,
    overlap: float = 0.0,
) -> float:
    """compute, latency: seconds; bandwidth: bit/s. Ring all-reduces; `overlap` is the share that may be hidden."""
    once = 2 * parameters * bits / bandwidth * (1 - 1 / workers) + latency
    communication = steps * volume(*periods) * once
    return compute + (1 - overlap) * communication + max(0.0, overlap * communication - compute)
