"""Photon's wall-clock model (arXiv 2411.02908): rounds of local steps, each followed by one aggregation.

The formula's text could not be read; PS and AR are the customary forms, RAR is verified by the paper's own figures
(10 Gbit/s, four clients, two bytes per parameter: 95.6 h against 147.9 h for 7B). No latency, no overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Topology = Literal["ps", "ar", "rar"]


@dataclass(frozen=True)
class Aggregation:
    """K clients exchange models of `size` bytes over a slowest link of `bandwidth` bytes/s."""

    clients: int
    size: float
    bandwidth: float
    topology: Topology = "rar"
    serial_ps: bool = False  # whether the server's link carries uploads and downloads one after the other

    @property
    def seconds(self) -> float:
        """PS: K S / B (2 K S / B when serial); AR, everyone to everyone: (K - 1) S / B; RAR: 2 S (K - 1) / (K B)."""
        k, time = self.clients, self.size / self.bandwidth
        if self.topology == "ps":
            return (2 if self.serial_ps else 1) * k * time
        return (k - 1) * time if self.topology == "ar" else 2 * (k - 1) / k * time


@dataclass(frozen=True)
class WallTime:
    """Seconds."""

    compute: float
    communication: float

    @property
    def total(self) -> float:
        return self.compute + self.communication


def wall_time(rounds: float, local_steps: int, steps_per_second: float, aggregation: Aggregation) -> WallTime:
    """R (tau / nu + T_comm); centralised data-parallel training is tau = 1, a round per step."""
    return WallTime(rounds * local_steps / steps_per_second, rounds * aggregation.seconds)
