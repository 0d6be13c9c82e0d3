"""What one node must set up, as plain data that travels to its agent as JSON.

Only the standard library is imported here: the agent starts in a fresh interpreter and must be ready in milliseconds.
Rates are bit/s, durations seconds, sizes bytes, probabilities 0 to 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Impairment:
    """What happens to a packet on its way from one site to another, besides waiting for a rate."""

    delay: float
    spread: float = 0.0  # of the jitter: standard deviation (normal, pareto) or half-width (uniform)
    distribution: str = "normal"
    reorder: bool = False
    to_bad: float = 0.0  # loss: in the good state, probability per packet of turning bad
    to_good: float = 1.0
    loss_in_bad: float = 0.0
    loss_in_good: float = 0.0
    duplicate: float = 0.0
    seed: str = ""

    @property
    def per_packet(self) -> bool:
        """Whether packets fare differently, so that a packet on the wire must not be a batch of 45 segments."""
        return bool(self.spread or self.to_bad or 0 < self.loss_in_good < 1 or self.duplicate)

    @property
    def bursty(self) -> bool:
        return self.to_bad > 0


@dataclass(frozen=True)
class Peer:
    """Another node, as this node must treat it: `rate` and `queue` there, `arrival` from there."""

    site: str
    address: str
    mac: str
    share: float  # guaranteed part of the uplink, bit/s
    rate: float  # never more than this, bit/s
    queue: int
    departure: Impairment
    arrival: Impairment


@dataclass(frozen=True)
class Address:
    """Where a node can be reached: on the shaped network, with its hardware address, and on the management network."""

    wan: str
    mac: str
    mgmt: str
    prefix: int = 16
    mgmt_prefix: int = 16


@dataclass(frozen=True)
class NodePlan:
    """Everything about one node's side of the WAN."""

    site: str
    address: str
    prefix: int
    mgmt_address: str
    mgmt_prefix: int
    engine: str
    mtu: int
    up: float
    down: float
    queue_down: int
    burst_hz: int
    segmented: bool  # every packet on the wire is one frame, not a batch of them
    copies: bool = False  # packets on their way here may be duplicated, now or later
    sysctls: dict[str, str] = field(default_factory=dict)
    congestion_control: str = "cubic"
    peers: tuple[Peer, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> NodePlan:
        peers = tuple(
            Peer(**{**peer, "departure": Impairment(**peer["departure"]), "arrival": Impairment(**peer["arrival"])})
            for peer in data["peers"]
        )
        return NodePlan(**{**data, "peers": peers})
