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
class QueueControl:
    """What a queue does besides dropping at its end. least, most: thresholds of red, bytes."""

    kind: str
    ecn: bool
    target: float = 0.0
    interval: float = 0.0
    least: int = 0
    most: int = 0
    probability: float = 0.0


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
    control: QueueControl | None = None  # of the queue


@dataclass(frozen=True)
class CoreStage:
    """A shared link of the core, at the node that carries them. pairs: addresses from and to."""

    name: str
    rate: float
    queue: int
    pairs: tuple[tuple[str, str], ...]
    control: QueueControl | None = None


@dataclass(frozen=True)
class Address:
    """Where a node can be reached: on the shaped and on the management network, each with its hardware address."""

    wan: str
    mac: str
    mgmt: str
    mgmt_mac: str
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
    mgmt_neighbours: dict[str, str] = field(default_factory=dict)  # hardware addresses of the other nodes
    control_down: QueueControl | None = None
    initial_window: int | None = None  # segments, where it is not the kernel's own
    core: tuple[CoreStage, ...] = ()  # of the node that carries shared links, and nothing else

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> NodePlan:
        peers = tuple(
            Peer(
                **{
                    **peer,
                    "departure": Impairment(**peer["departure"]),
                    "arrival": Impairment(**peer["arrival"]),
                    "control": _control(peer["control"]),
                }
            )
            for peer in data["peers"]
        )
        core = tuple(
            CoreStage(
                **{
                    **stage,
                    "pairs": tuple((a, b) for a, b in stage["pairs"]),
                    "control": _control(stage["control"]),
                }
            )
            for stage in data["core"]
        )
        return NodePlan(**{**data, "peers": peers, "core": core, "control_down": _control(data["control_down"])})


def _control(data: dict[str, Any] | None) -> QueueControl | None:
    return None if data is None else QueueControl(**data)
