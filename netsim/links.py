"""What a WAN is made of: sites with access links, directed links between them, and TCP as pinned in every node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from netsim.documents import Document
from netsim.queue_kinds import Queue, Stated
from netsim.units import Delay, Rate, Share, Size

INITIAL_WINDOW = 10  # segments; RFC 6928


class Jitter(Document):
    """Random extra delay around the mean. `spread`: standard deviation (normal, pareto) or half-width (uniform)."""

    spread: Delay
    distribution: Literal["normal", "pareto", "uniform"] = "normal"
    reorder: bool = False  # whether a packet may overtake an earlier one


class GilbertElliott(Document):
    """Bursty loss: a two-state chain stepped per packet (Gilbert 1960, Elliott 1963)."""

    to_bad: Share
    to_good: Share
    loss_in_bad: Share = 1.0
    loss_in_good: Share = 0.0

    @property
    def mean(self) -> float:
        """Long-run share of packets lost."""
        if self.to_bad + self.to_good == 0:
            return self.loss_in_good
        bad = self.to_bad / (self.to_bad + self.to_good)
        return bad * self.loss_in_bad + (1 - bad) * self.loss_in_good


class Transport(Document):
    """TCP as pinned in every node. Buffers bound the window; they must hold the largest bandwidth-delay product."""

    congestion_control: Literal["cubic", "reno", "bbr"] = "cubic"
    # Linux starts every receive buffer with 128 KiB, and its settings are 32-bit numbers.
    buffer: Annotated[Size, Field(ge=128 * 2**10, le=2**31 - 1)] = 64 * 10**6
    mtu: int = Field(default=1500, ge=576, le=65000)
    # Segments that a connection may have in flight in its first round trip. Linux's own is that of RFC 6928.
    initial_window: int = Field(default=INITIAL_WINDOW, ge=1, le=65535)


class Impairments(Document):
    """What a document may say of a link. Unset fields are left to defaults, or as they were."""

    delay: Delay | None = None
    rtt: Delay | None = None
    jitter: Jitter | None = None
    loss: Share | GilbertElliott = 0.0
    rate: Rate | None = None
    duplicate: Share = 0.0
    queue: Queue | None = None

    @model_validator(mode="after")
    def _one_delay(self) -> Self:
        if self.delay is not None and self.rtt is not None:
            raise ValueError("delay (one way) or rtt (twice as much), not both")
        if any(name in self.model_fields_set and getattr(self, name) is None for name in ("delay", "rtt")):
            raise ValueError("a duration for delay or rtt, not null")
        if self.rate == 0:
            raise ValueError("a pair rate above zero")
        return self


@dataclass(frozen=True)
class Site:
    """A place with its own access link; rates in bit/s."""

    name: str
    up: float
    down: float
    workers: int = 1  # that train there as one: a rank is a site


@dataclass(frozen=True)
class Link:
    """What a packet from `source` to `target` meets besides the access links. Seconds, bit/s, shares, bytes."""

    source: str
    target: str
    delay: float
    jitter: Jitter | None = None
    loss: float | GilbertElliott = 0.0
    rate: float | None = None  # a cap of this pair; None: only the access links bound it
    duplicate: float = 0.0
    queue: Stated = None  # ahead of the bottleneck: bytes (int), seconds at its rate (float), or more; None: default

    @property
    def mean_loss(self) -> float:
        return self.loss.mean if isinstance(self.loss, GilbertElliott) else self.loss
