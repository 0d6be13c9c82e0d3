"""Probes as data: a stream, what a receiver counted of it, and the ports and layouts that both sides use.

Sequence numbers show loss and duplication; the receiver's clock shows the rate. Round-trip times are taken by
user-space echo: the kernel's own receive timestamps, which ping reads, are taken before the delay.
"""

from __future__ import annotations

import socket
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

ECHO_PORT, STREAM_PORT, DISCARD_PORT = 7007, 7008, 7009
UDP_SEGMENT, UDP_GRO = 103, 104
SOL_UDP = 17
PING = struct.Struct(">II")
NUMBERED = struct.Struct(">II")  # stream, sequence number


@dataclass
class Arrivals:
    """What a receiver saw of one stream: payload bytes with the time of each read, and which datagrams."""

    times: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    datagrams: int = 0

    reordered: int = 0
    _last: int = -1

    def count(self, sequence: int) -> bool:
        """Counts one datagram; whether it is the first copy."""
        self.datagrams += 1
        if sequence in self.seen:
            return False
        self.seen.add(sequence)
        self.reordered += sequence < self._last
        self._last = max(self._last, sequence)
        return True

    def gaps(self) -> int:
        """Runs of consecutive datagrams that are missing before the last that was seen."""
        return sum(number > 0 and number - 1 not in self.seen for number in self.seen)

    def rate(self, over: float, tail: float = 0.0) -> float:
        """Payload bit/s in the last `over` seconds of the stream; 0 if there were fewer than two reads.

        tail: seconds at the very end that are left out: there only those that jitter has held up longest still arrive.
        """
        if len(self.times) < 2:
            return 0.0
        last = max(1, bisect_right(self.times, self.times[-1] - tail) - 1)
        first = bisect_left(self.times, max(self.times[last] - over, self.times[0]))
        first = min(first, last - 1)
        return sum(self.sizes[first + 1 : last + 1]) * 8 / (self.times[last] - self.times[first])


@dataclass(frozen=True)
class ProbeStream:
    """One probe: `kind` udp or tcp, for `seconds`, identified by `number`. `payload`: bytes per datagram.

    pace: payload bytes per second of datagrams, where the sender's own link is not the narrowest; 0: as the link takes
    them. The sender may be behind by `room`, and no more: a burst after it was held up would overflow the queue.
    """

    number: int
    kind: str
    source: str
    target: str
    seconds: float
    payload: int
    batch: int = 1  # datagrams handed over at once
    room: int = 1 << 16  # bytes of the sender that may wait ahead of the link; the link's queue must hold them
    streams: int = 1
    pace: float = 0.0


def udp_socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made
