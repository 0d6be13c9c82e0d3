"""Measuring links: a process per node that answers echoes and counts streams, and the senders that it serves.

Sequence numbers show loss and duplication; the receiver's clock shows the rate. Round-trip times are taken by
user-space echo: the kernel's own receive timestamps, which ping reads, are taken before the delay.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from netsim.emulated.priority import PROBE, hurry

ECHO_PORT, STREAM_PORT = 7007, 7008
UDP_SEGMENT, UDP_GRO = 103, 104
_SOL_UDP = 17
_ping = struct.Struct(">II")
_numbered = struct.Struct(">II")  # stream, sequence number
_BUFFER = 8 * 2**20
_READ = 1 << 20


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
    streams: int = 1


# --- the receiving side -----------------------------------------------------------------------------------------------


class Server:
    """Echoes datagrams, counts streams, and reports what it counted on a control socket. Runs in its own process."""

    def __init__(self, address: str) -> None:
        self._echo = _udp(address, ECHO_PORT)
        self._datagrams = _udp(address, STREAM_PORT)
        self._datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with contextlib.suppress(OSError):
            self._datagrams.setsockopt(_SOL_UDP, UDP_GRO, 1)
        self._listener = socket.create_server((address, STREAM_PORT), backlog=256)
        self._connections: dict[int, tuple[socket.socket, list[Arrivals]]] = {}
        self._arrivals: dict[int, Arrivals] = {}
        self._buffer = bytearray(_READ)

    def serve(self, control: socket.socket) -> None:
        """Until `control` is closed. A JSON line {"number", "over"} is answered by the stream's rate and counts."""
        granted = hurry(PROBE)
        control.sendall(json.dumps({"ready": True, "priority": granted}).encode() + b"\n")
        poll = select.poll()
        for one in (self._echo, self._datagrams, self._listener, control):
            poll.register(one.fileno(), select.POLLIN)
        pending = b""
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._echo.fileno():
                    self._reflect()
                elif descriptor == self._datagrams.fileno():
                    self._count_datagrams()
                elif descriptor == self._listener.fileno():
                    connection, _ = self._listener.accept()
                    self._connections[connection.fileno()] = (connection, [])
                    poll.register(connection.fileno(), select.POLLIN)
                elif descriptor == control.fileno():
                    received = control.recv(65536)
                    if not received:
                        return
                    *questions, pending = (pending + received).split(b"\n")
                    for question in questions:
                        control.sendall(json.dumps(self._report(json.loads(question))).encode() + b"\n")
                elif not self._count_stream(descriptor):
                    poll.unregister(descriptor)
                    self._connections.pop(descriptor)[0].close()

    def _reflect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = self._echo.recvfrom(2048)
                self._echo.sendto(data, sender)

    def _count_datagrams(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                size, ancillary, _, _ = self._datagrams.recvmsg_into([self._buffer], 64)
                now = monotonic()
                segment = next((struct.unpack("=i", data[:4])[0] for _, _, data in ancillary), size)
                stream = None
                for offset in range(0, size, segment):
                    number, sequence = _numbered.unpack_from(self._buffer, offset)
                    stream = self._arrivals.setdefault(number, Arrivals())
                    stream.seen.add(sequence)
                    stream.datagrams += 1
                if stream is not None:
                    stream.times.append(now)
                    stream.sizes.append(size)

    def _count_stream(self, descriptor: int) -> bool:
        connection, found = self._connections[descriptor]
        try:
            size = connection.recv_into(self._buffer)
        except OSError:
            return False
        if not size:
            return False
        if not found:
            (number,) = struct.unpack_from(">I", self._buffer)
            found.append(self._arrivals.setdefault(number, Arrivals()))
        found[0].times.append(monotonic())
        found[0].sizes.append(size)
        return True

    def _report(self, question: dict[str, Any]) -> dict[str, Any]:
        arrivals = self._arrivals.get(question["number"], Arrivals())
        if question.get("finish"):
            self._arrivals.pop(question["number"], None)
        return {
            "rate": arrivals.rate(question["over"]),
            "seen": len(arrivals.seen),
            "datagrams": arrivals.datagrams,
            "bytes": sum(arrivals.sizes),
            "quiet": monotonic() - arrivals.times[-1] if arrivals.times else None,
        }


# --- the sending side -------------------------------------------------------------------------------------------------


def echo_times(own: str, targets: Sequence[str], count: int, interval: float, patience: float) -> list[list[float]]:
    """Round-trip times to each target, seconds, of `count` echoes; those not back within `patience` are left out."""
    hurry(PROBE)
    sent: dict[tuple[int, int], float] = {}
    times: list[list[float]] = [[] for _ in targets]
    with _udp(own, 0) as sender:
        start = monotonic()
        upcoming = [
            (round_ * interval + place * interval / max(1, len(targets)), round_, place)
            for round_ in range(count)
            for place in range(len(targets))
        ]
        end = start + count * interval + patience
        while monotonic() < end and (upcoming or len(sent) > 0):
            while upcoming and monotonic() - start >= upcoming[0][0]:
                _, round_, place = upcoming.pop(0)
                sent[place, round_] = monotonic()
                with contextlib.suppress(OSError):
                    sender.sendto(_ping.pack(place, round_), (targets[place], ECHO_PORT))
            until = start + upcoming[0][0] if upcoming else end
            select.select([sender.fileno()], [], [], max(0.0, until - monotonic()))
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, _ = sender.recvfrom(2048)
                    now = monotonic()
                    place, round_ = _ping.unpack_from(data)
                    if (began := sent.pop((place, round_), None)) is not None:
                        times[place].append(now - began)
    return times


def send_stream(own: str, stream: Stream) -> dict[str, Any]:
    """Sends for the stream's duration as fast as the link takes it; returns how much was handed over."""
    return _send_datagrams(own, stream) if stream.kind == "udp" else _send_tcp(own, stream)


def _send_datagrams(own: str, stream: Stream) -> dict[str, Any]:
    """Blocks whenever the sender's queue is full, so that nothing is lost before the link itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((own, 0))
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, stream.room)
        if stream.batch > 1:
            sender.setsockopt(_SOL_UDP, UDP_SEGMENT, stream.payload)
        sender.connect((stream.target, STREAM_PORT))
        buffer = bytearray(stream.batch * stream.payload)
        sequence, end = 0, monotonic() + stream.seconds
        while monotonic() < end:
            for place in range(stream.batch):
                _numbered.pack_into(buffer, place * stream.payload, stream.number, sequence + place)
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


def _udp(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made
