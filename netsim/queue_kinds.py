"""How a queue ahead of a bottleneck decides what to drop: at its end (droptail), by FQ-CoDel, or by RED.

droptail: what finds the queue full (the default). fq_codel: one queue per flow, packets dropped or marked once they
have waited longer than `target` for an `interval` (RFC 8290). red: with a probability that grows from 0 at `min` bytes
of mean queue length to `probability` at `max`, above which all are (Floyd and Jacobson 1993).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from netsim.documents import Document
from netsim.errors import InputError
from netsim.units import QUEUE_SCHEMA, Duration, Share, parse_duration, parse_size

LONGEST_QUEUE = 2**32 - 1  # bytes; the limit of the kernel's queues is a 32-bit number
KINDS = ("droptail", "fq_codel", "red")
_OF_KIND = {"fq_codel": {"target", "interval"}, "red": {"min", "max", "probability"}, "droptail": set[str]()}


def parse_room(text: object) -> int | float:
    """'150 kB' -> bytes as an int; '50 ms' -> seconds as a float: as long as the queue takes to drain."""
    try:
        size = parse_size(text)
    except ValueError:
        pass
    else:
        if size > LONGEST_QUEUE:
            raise ValueError(f"at most {LONGEST_QUEUE} bytes")
        return size
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError("a size like '150 kB', or a duration like '50 ms'") from None


Room = Annotated[int | float, BeforeValidator(parse_room), QUEUE_SCHEMA]


class ManagedQueue(Document):
    """A queue of a kind. size: all its room; as without a kind, unless stated. ecn: marks packets of TCP instead.

    target, interval: of fq_codel. min, max, probability: of red; a twelfth and a quarter of the room and 2 %, which are
    tc's own, unless stated.
    """

    kind: Literal["droptail", "fq_codel", "red"]
    size: Room | None = None
    ecn: bool = False
    target: Annotated[Duration, Field(gt=0, le=10)] = 0.005
    interval: Annotated[Duration, Field(gt=0, le=60)] = 0.1
    min: Room | None = None
    max: Room | None = None
    probability: Annotated[Share, Field(gt=0)] = 0.02

    @model_validator(mode="after")
    def _own_options(self) -> Self:
        others = {name for kind, names in _OF_KIND.items() if kind != self.kind for name in names}
        if wrong := sorted(self.model_fields_set & others):
            own = ", ".join(sorted(_OF_KIND[self.kind])) or "none"
            raise ValueError(f"options of {self.kind}: {own}; {wrong[0]} is of another kind")
        if self.ecn and self.kind == "droptail":
            raise ValueError("ecn with fq_codel or red; droptail marks nothing")
        return self


def _form(value: object) -> str:
    return "managed" if isinstance(value, Mapping | ManagedQueue) else "room"


Queue = Annotated[
    Annotated[Room, Tag("room")] | Annotated[ManagedQueue, Tag("managed")],
    Discriminator(_form),
]
Stated = int | float | ManagedQueue | None  # as a link keeps it


def room_of(stated: Stated) -> int | float | None:
    """What is said of its size: bytes (int), or seconds at its rate (float)."""
    return stated.size if isinstance(stated, ManagedQueue) else stated


def managed(stated: Stated) -> ManagedQueue | None:
    """What is said of its kind; None for droptail."""
    return stated if isinstance(stated, ManagedQueue) and stated.kind != "droptail" else None


def kind_of(stated: Stated) -> str:
    return found.kind if (found := managed(stated)) is not None else "droptail"


def keep_kinds(changes: Iterable[tuple[str, Stated, Stated]], where: str) -> None:
    """Raises InputError for a change of a queue's kind on a network that runs. changes: field, before and after."""
    for field, before, after in changes:
        if kind_of(before) != kind_of(after):
            given = f"queue: {{kind: {kind_of(before)}, size: ...}}" if managed(before) is not None else "a size"
            raise InputError(where, f"{field}.queue", kind_of(after), f"{given}: the kind of a queue stays")


def thresholds(kind: ManagedQueue, room: int, rate: float) -> tuple[int, int]:
    """`min` and `max` of red in bytes, ahead of `rate` bit/s. ValueError where they do not fit into `room`."""

    def in_bytes(size: int | float) -> int:
        return size if isinstance(size, int) else round(size * rate / 8)

    least = None if kind.min is None else in_bytes(kind.min)
    most = in_bytes(kind.max) if kind.max is not None else 3 * least if least is not None else room // 4
    least = most // 3 if least is None else least
    if not 0 < least < most <= room:
        raise ValueError(f"min below max, and max at most the size; here min is {least} B and max {most} B")
    return least, most
