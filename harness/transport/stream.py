"""One TCP connection of a pair: frames out, frames in, never blocking.

Bodies are sent from and received into their final memory, many at a time: `sendmsg` gathers header and body,
`recvmsg_into` scatters the rest of a body and the next header, and the kernel wakes us only when `BATCH` bytes, or the
rest of the body, have come (SO_RCVLOWAT): at 100 Mbit/s packets trickle in, and waking for each of them would cost
more than all copying.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.transport.buffers import Body
from harness.transport.frames import HEADER_SIZE, Header, unpack_header, word_sum
from netsim.errors import PeerError

# tcpi_snd_mss, tcpi_unacked, tcpi_pacing_rate, tcpi_bytes_acked (and tcpi_bytes_received after it), tcpi_notsent_bytes
# in struct tcp_info of linux/tcp.h.
_SEGMENT_AT, _FLYING_AT, _RATE_AT, _ACKED_AT, _UNSENT_AT, _INFO_SIZE = 16, 24, 104, 120, 144, 148
PROGRESS = 4096  # bytes, both ways together, that are more than questions and answers about who is there
BATCH = 1 << 17  # bytes
BUDGET = 1 << 22  # bytes per turn, so that one fast stream does not keep the others waiting


@dataclass(slots=True, eq=False)
class Frame:
    """A packed header, its body, and whom to tell when the kernel has taken both."""

    header: bytes
    body: memoryview | None = None
    sent: Callable[[], None] | None = None


class Receiver(Protocol):
    """Where a stream's frames go. Both methods may raise PeerError: the stream is then of no more use."""

    def room(self, header: Header) -> Body:
        """Memory for the body of a frame that has begun to arrive."""

    def arrived(self, header: Header, body: Body | None) -> None:
        """A whole frame, its checksum verified."""


class Stream:
    """Frames over one non-blocking socket. `fetch` gives the next frame that this stream is to send, if any."""

    def __init__(self, sock: socket.socket, receiver: Receiver, fetch: Callable[[Stream], Frame | None]) -> None:
        self.sock, self._receiver, self._fetch = sock, receiver, fetch
        self.writing = False  # the kernel is full: wait until it is writable
        self.ended = False  # the peer has closed its side
        self.heard = self.moved = time.monotonic()  # when anything last arrived; when payload last moved, either way
        self._seen = self._moved_to = 0
        self.last: Frame | None = None  # to be sent when nothing else is left
        self._frame: Frame | None = None
        self._out: list[memoryview] = []
        self._head = memoryview(bytearray(HEADER_SIZE))
        self._head_size = 0
        self._header: Header | None = None
        self._body: Body | None = None
        self._rest = memoryview(b"")
        self._low = 0

    def send(self) -> None:
        """Hand frames to the kernel until it is full or nothing is left. Raises OSError if the connection is gone."""
        budget = BUDGET
        while budget > 0:
            if not self._out:
                frame = self._fetch(self)
                if frame is None:
                    frame, self.last = self.last, None
                if frame is None:
                    self.writing = False
                    return
                self._frame = frame
                self._out = [memoryview(frame.header)]
                if frame.body is not None:
                    self._out.append(frame.body)
            try:
                count = self.sock.sendmsg(self._out)
            except BlockingIOError:
                break
            budget -= count
            while self._out and count >= len(self._out[0]):
                count -= len(self._out.pop(0))
            if self._out:
                self._out[0] = self._out[0][count:]
                break  # taken in part: the kernel is full
            assert self._frame is not None
            if self._frame.sent is not None:
                self._frame.sent()
            self._frame = None
        self.writing = True

    def observe(self) -> None:
        """Bring `heard` and `moved` up to date from the kernel's counts of bytes received and acknowledged: on a slow
        link, what the kernel holds for us or for the peer keeps it busy for many seconds."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        acknowledged, received = struct.unpack_from("=QQ", info, _ACKED_AT)
        now = time.monotonic()
        if received != self._seen:
            self._seen, self.heard = received, now
        if acknowledged + received - self._moved_to > PROGRESS:
            self._moved_to, self.moved = acknowledged + received, now

    def pace(self) -> tuple[int, float]:
        """Bytes that the peer has not acknowledged, sent or not, and bytes per second at which the window lets them go.

        Those in flight count: they fill a window that an idle connection has free."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        rate: int = struct.unpack_from("=Q", info, _RATE_AT)[0]
        segment, flying, unsent = (
            struct.unpack_from("=I", info, at)[0] for at in (_SEGMENT_AT, _FLYING_AT, _UNSENT_AT)
        )
        return unsent + flying * segment, float(max(rate, 1))

    @property
    def idle(self) -> bool:
        """Whether no frame is half sent."""
        return not self._out

    def receive(self) -> None:
        """Take in what has arrived. Raises OSError if the connection is gone, PeerError if it is out of step."""
        budget = BUDGET
        while budget > 0:
            buffers = [self._head[self._head_size :]]
            asked = len(buffers[0]) + len(self._rest)
            if self._rest:
                buffers.insert(0, self._rest)
            try:
                count = self.sock.recvmsg_into(buffers)[0]
            except BlockingIOError:
                break
            if count == 0:
                self.ended = True
                if self._rest or self._head_size:
                    raise PeerError("closed its connection in the middle of a frame", hung_up=True, corrupt=True)
                return
            budget -= count
            self._advance(count)
            if count < asked:
                break
        # However the turn ended: a threshold left from before might never be reached by what is still to come.
        self._wake_at(min(len(self._rest), BATCH) or HEADER_SIZE - self._head_size)

    def _wake_at(self, count: int) -> None:
        """Let the kernel wait for `count` bytes, or the end, before it reports this socket as readable."""
        if count != self._low:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._low = count

    def _advance(self, count: int) -> None:
        if self._rest:
            body = min(count, len(self._rest))
            self._rest = self._rest[body:]
            count -= body
            if not self._rest:
                self._deliver()
        self._head_size += count
        if self._head_size == HEADER_SIZE:
            self._head_size = 0
            self._header = unpack_header(self._head.tobytes())
            if self._header.length:
                self._body = self._receiver.room(self._header)
                self._rest = self._body.memory
            else:
                self._deliver()

    def _deliver(self) -> None:
        header, body = self._header, self._body
        assert header is not None
        self._header = self._body = None
        if body is not None and word_sum(body.memory) != header.checksum:
            raise PeerError("sent a body that does not have its checksum", corrupt=True)
        self._receiver.arrived(header, body)
