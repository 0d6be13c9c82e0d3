"""The sending side of probes: echoes, streams and cross-traffic. Each runs in a child of the prober."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Sequence
from mmap import mmap
from time import monotonic, sleep

from netsim.emulated.node.probes import (
    DISCARD_PORT,
    ECHO_PORT,
    NUMBERED,
    PING,
    SOL_UDP,
    STREAM_PORT,
    UDP_SEGMENT,
    ProbeStream,
    udp_socket,
)
from netsim.emulated.node.requests import RoundTrips, StreamSent, TrafficSent
from netsim.framing import ETHERNET, datagram


def echoes(own: str, targets: Sequence[str], count: int, interval: float, patience: float) -> RoundTrips:
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
    return RoundTrips(
        tuple(
            tuple(
                (began[place, number], took.get((place, number))) for number in range(count) if (place, number) in began
            )
            for place in range(len(targets))
        )
    )


def send_stream(own: str, stream: ProbeStream) -> StreamSent:
    """Sends for the stream's duration as fast as the link takes it; returns how much was handed over."""
    return _send_datagrams(own, stream) if stream.kind == "udp" else _send_tcp(own, stream)


def _send_datagrams(own: str, stream: ProbeStream) -> StreamSent:
    """Blocks whenever the sender's queue is full, so that nothing is lost before the link itself.

    A queue further on holds the sender back only where the kernel counts what waits there against its socket.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((own, 0))
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, stream.room)
        if stream.batch > 1:
            sender.setsockopt(SOL_UDP, UDP_SEGMENT, stream.payload)
        sender.connect((stream.target, STREAM_PORT))
        buffer = bytearray(stream.batch * stream.payload)
        start, sequence = monotonic(), 0
        due, slack = start, stream.room / stream.pace if stream.pace else 0.0
        while (now := monotonic()) - start < stream.seconds:
            if stream.pace:
                due = max(due, now - slack)
                if due > now:
                    sleep(due - now)
                due += len(buffer) / stream.pace
            for place in range(stream.batch):
                NUMBERED.pack_into(buffer, place * stream.payload, stream.number, sequence + place)
            with contextlib.suppress(ConnectionRefusedError):
                sender.send(buffer)
                sequence += stream.batch
    return StreamSent(sequence)


def _send_tcp(own: str, stream: ProbeStream) -> StreamSent:
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
        return StreamSent(sent)
    finally:
        for connection in connections:
            # Reset instead of close: what still waits in the buffers must not disturb the next probe.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def send_traffic(own: str, target: str, rate: float, seconds: float, mtu: int, counter: mmap) -> TrafficSent:
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
    return TrafficSent(offered, dropped)
