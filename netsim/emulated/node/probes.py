"""Measuring links: echoes and streams, and what a receiver saw of a stream.

Sequence numbers show loss and duplication; the receiver's clock shows the rate. Round-trip times are taken by
user-space echo: the kernel's own receive timestamps, which ping reads, are taken before the delay.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from mmap import mmap
from time import monotonic, sleep
from typing import Any

from netsim.framing import ETHERNET, datagram

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

    def rate(self, over: float) -> float:
        """Payload bit/s in the last `over` seconds of the stream; 0 if there were fewer than two reads."""
        if len(self.times) < 2:
            return 0.0
        start = max(self.times[-1] - over, self.times[0])
        first = next(index for index, time in enumerate(self.times) if time >= start)
        first = min(first, len(self.times) - 2)
        return sum(self.sizes[first + 1 :]) * 8 / (self.times[-1] - self.times[first])


@dataclass(frozen=True)
class Stream:
    """One probe: `kind` udp or tcp, for `seconds`, identified by `number`. `payload`: bytes per datagram."""

    number: int
    kind: str
    source: str
    target: str
    seconds: float
    payload: int
    batch: int = 1  # datagrams handed over at once
    room: int = 1 << 16  # bytes of the sender that may wait ahead of the link; the link's queue must hold them
    pace: float | None = None  # bit/s of payload, where what waits does not hold the sender back (netem disowns it)
    streams: int = 1


def echoes(
    own: str, targets: Sequence[str], count: int, interval: float, patience: float
) -> list[list[tuple[float, float | None]]]:
    """For each target, `count` echoes: when each was sent (monotonic clock) and how long it took, seconds.

    None for those not back within `patience` seconds after the last was sent.
    """
    began: dict[tuple[int, int], float] = {}
    took: dict[tuple[int, int], float] = {}
    step = interval / max(1, len(targets))
    upcoming = [
        (number * interval + place * step, number, place) for number in range(count) for place in range(len(targets))
    ]
    with udp_socket(own, 0) as sender:
        start = monotonic()
        end = start + count * interval + patience
        while monotonic() < end and (upcoming or len(took) < len(began)):
            while upcoming and monotonic() - start >= upcoming[0][0]:
                _, number, place = upcoming.pop(0)
                began[place, number] = monotonic()
                with contextlib.suppress(OSError):
                    sender.sendto(PING.pack(place, number), (targets[place], ECHO_PORT))
            until = start + upcoming[0][0] if upcoming else end
            select.select([sender.fileno()], [], [], max(0.0, until - monotonic()))
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, _ = sender.recvfrom(2048)
                    now = monotonic()
                    key = PING.unpack_from(data)
                    took.setdefault(key, now - began[key])
    return [
        [(began[place, number], took.get((place, number))) for number in range(count) if (place, number) in began]
        for place in range(len(targets))
    ]


def pace_of(rate: float, queue: int, seconds: float, mtu: int) -> float:
    """Payload bit/s a little above what `rate` carries, by so much that the excess fills half of the link's queue."""
    excess = min(0.05, queue / 2 * 8 / (rate * seconds))
    return rate * (1 + excess) * datagram(mtu) / (mtu + ETHERNET)


def send_stream(own: str, stream: Stream) -> dict[str, Any]:
    """Sends for the stream's duration as fast as the link takes it; returns how much was handed over."""
    return _send_datagrams(own, stream) if stream.kind == "udp" else _send_tcp(own, stream)


def _send_datagrams(own: str, stream: Stream) -> dict[str, Any]:
    """Blocks whenever the sender's queue is full, so that nothing is lost before the link itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((own, 0))
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, stream.room)
        if stream.batch > 1:
            sender.setsockopt(SOL_UDP, UDP_SEGMENT, stream.payload)
        sender.connect((stream.target, STREAM_PORT))
        buffer = bytearray(stream.batch * stream.payload)
        start, sequence = monotonic(), 0
        while (elapsed := monotonic() - start) < stream.seconds:
            ahead = sequence * stream.payload * 8 / stream.pace - elapsed if stream.pace else 0.0
            if ahead > 0:
                sleep(min(ahead, stream.seconds - elapsed))
                continue
            for place in range(stream.batch):
                NUMBERED.pack_into(buffer, place * stream.payload, stream.number, sequence + place)
            with contextlib.suppress(ConnectionRefusedError):
                sender.send(buffer)
                sequence += stream.batch
    return {"sent": sequence}


def _send_tcp(own: str, stream: Stream) -> dict[str, Any]:
    connections = []
    try:
        for _ in range(stream.streams):
            connection = socket.create_connection((stream.target, STREAM_PORT), 10, (own, 0))
            connection.sendall(struct.pack(">I", stream.number))
            connection.setblocking(False)
            connections.append(connection)
        block, sent, end = bytes(1 << 18), 0, monotonic() + stream.seconds
        while (left := end - monotonic()) > 0:
            _, writable, _ = select.select([], connections, [], left)
            for connection in writable:
                with contextlib.suppress(BlockingIOError):
                    sent += connection.send(block)
        return {"sent": sent}
    finally:
        for connection in connections:
            # Reset instead of close: what still waits in the buffers must not disturb the next probe.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def send_traffic(own: str, target: str, rate: float, seconds: float, mtu: int, counter: mmap) -> dict[str, Any]:
    """Full frames at `rate` bit/s on the wire to a port that discards them; what finds no room is dropped, not kept.

    counter: eight bytes that hold the bytes sent so far, on the wire.
    """
    frame, content = mtu + ETHERNET, bytes(datagram(mtu))
    with udp_socket(own, 0) as sender:
        begin, offered, dropped = monotonic(), 0, 0
        while (elapsed := monotonic() - begin) < seconds:
            while offered * frame * 8 < rate * elapsed:
                offered += 1
                try:
                    sender.sendto(content, (target, DISCARD_PORT))
                    counter[:8] = struct.pack("=Q", struct.unpack("=Q", counter[:8])[0] + frame)
                except OSError:
                    dropped += 1
            sleep(max(0.0, min(seconds - elapsed, (offered * frame * 8 / rate) - elapsed, 0.01)))
    return {"offered": offered, "dropped": dropped}


def udp_socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made
