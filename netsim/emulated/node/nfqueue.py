"""The kernel's NFQUEUE over a raw netlink socket: bind queues, read packet numbers, send verdicts.

Message layouts are those of linux/netfilter/nfnetlink_queue.h. Only metadata is copied, unless a link duplicates.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from netsim.errors import HostError

NETLINK_NETFILTER = 12
NETLINK_NO_ENOBUFS, SOL_NETLINK, SO_RCVBUFFORCE = 5, 270, 33
_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG, _VERDICT_BATCH = (_SUBSYSTEM | kind for kind in range(4))
_REQUEST, _ACK = 1, 4
_ERROR = 2

_CFG_CMD, _CFG_PARAMS, _CFG_QUEUE_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_CMD_BIND = 1
_COPY_META, _COPY_PACKET = 1, 2
_FLAG_GSO = 1 << 2

DROP, ACCEPT = 0, 1
PACKETS = 1 << 20  # per queue; the longest path holds fewer, and what exceeds it is dropped, never let through
_BUFFER = 64 * 2**20

# A packet message starts with the netlink header (16), family, version and queue, then the packet header attribute.
QUEUE_OFFSET, PACKET_OFFSET = 18, 24
HEADER = 28
_PAYLOAD = 10  # attribute number

_kind_queue_packet = struct.Struct(">4xH12xH4xI").unpack_from
_A_PACKET = int.from_bytes(_PACKET.to_bytes(2, sys.byteorder), "big")  # the kind as read by the line above
_VERDICTS_AT_ONCE = 1024  # 32 bytes each; the kernel refuses messages longer than the socket's send buffer


class QueueSocket:
    """One socket that reads several queues."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
            self._socket.bind((0, 0))
        except OSError as error:
            raise HostError(f"no NFQUEUE (kernel option CONFIG_NETFILTER_NETLINK_QUEUE): {error.strerror}") from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
        self._sequence = 0
        self._header = bytearray(HEADER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def bind(self, queue: int, *, copy: bool) -> None:
        """Takes over `queue`. copy: with the packets' bytes, each complete; else batches of segments pass as one."""
        flags = 0 if copy else _FLAG_GSO
        params = struct.pack(">IB", 0xFFFF if copy else 0, _COPY_PACKET if copy else _COPY_META)
        for attributes in (
            _attribute(_CFG_CMD, struct.pack(">BBH", _CMD_BIND, 0, socket.AF_INET)),
            _attribute(_CFG_PARAMS, params),
            _attribute(_CFG_QUEUE_MAXLEN, struct.pack(">I", PACKETS)),
            _attribute(_CFG_FLAGS, struct.pack(">I", flags)) + _attribute(_CFG_MASK, struct.pack(">I", _FLAG_GSO)),
        ):
            self._configure(queue, attributes)

    def _configure(self, queue: int, attributes: bytes) -> None:
        self._sequence += 1
        body = struct.pack(">BBH", 0, 0, queue) + attributes
        header = struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST | _ACK, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            answer = self._socket.recv(65536)
            kind, sequence = struct.unpack_from("=4xHxxI", answer)
            if kind == _ERROR and sequence == self._sequence:
                (code,) = struct.unpack_from("=i", answer, 16)
                if code:
                    raise HostError(f"NFQUEUE {queue}: {os.strerror(-code)}")
                return

    def read(self, arrive: Mapping[int, Callable[[int, float], None]], most: int) -> int:
        """Tells of waiting packets, at most so many, their number and the time to those concerned, by queue.

        Returns how many there were. The kernel passes on one packet a call, so what is done for each is kept short: the
        clock is read once for a few packets, which takes some 20 us.
        """
        receive, unpack, header = self._socket.recv_into, _kind_queue_packet, self._header
        count = 0
        while count < most:
            try:
                receive(header, HEADER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not count & 7:
                now = monotonic()
            kind, queue, packet = unpack(header)
            if kind == _A_PACKET:
                arrive[queue](packet, now)
            # Else the kernel reports an error, such as a verdict for a packet that it has dropped with its device.
            count += 1
        return count

    def read_whole(self) -> tuple[int, int, bytes] | None:
        """Queue, number and bytes of the next waiting packet; empty where the queue was bound without copy."""
        while True:
            try:
                data = self._socket.recv(70_000, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            kind, queue, packet = _kind_queue_packet(data)
            if kind == _A_PACKET:
                return queue, packet, _payload(data)

    def verdict(self, queue: int, packet: int, verdict: int) -> None:
        self._send(_message(_VERDICT, queue, packet, verdict))

    def accept_up_to(self, queue: int, packet: int) -> None:
        """Accepts every waiting packet of the queue whose number is not above `packet`."""
        self._send(_message(_VERDICT_BATCH, queue, packet, ACCEPT))

    def accept(self, queue: int, packets: Sequence[int]) -> None:
        for first in range(0, len(packets), _VERDICTS_AT_ONCE):
            some = packets[first : first + _VERDICTS_AT_ONCE]
            self._send(b"".join(_message(_VERDICT, queue, packet, ACCEPT) for packet in some))

    def _send(self, message: bytes) -> None:
        self._socket.send(message)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


_TAIL = struct.Struct(">BBH")
_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_DECISION = struct.Struct(">II")


def _message(kind: int, queue: int, packet: int, verdict: int) -> bytes:
    return (
        _HEAD.pack(32, kind, _REQUEST, 0, 0)
        + _TAIL.pack(0, 0, queue)
        + _ATTRIBUTE.pack(12, 2)
        + _DECISION.pack(verdict, packet)
    )


def _payload(message: bytes) -> bytes:
    offset = 20
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if kind & 0x3FFF == _PAYLOAD:
            return message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return b""
