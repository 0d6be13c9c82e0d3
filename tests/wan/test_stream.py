"""One stream over a real TCP connection."""

from __future__ import annotations

import select
import socket
import sys
from collections import deque
from collections.abc import Iterator

import pytest
import torch

from harness.transport.buffers import Body
from harness.transport.frames import HEADER_SIZE, Header, Kind, pack_header
from harness.transport.mesh import SO_MAX_PACING_RATE, tune
from harness.transport.stream import BATCH, Frame, Stream
from netsim.errors import PeerError


class Inbox:
    """Keeps the frames that a stream delivers."""

    def __init__(self) -> None:
        self.frames: list[tuple[Header, bytes]] = []

    def room(self, header: Header) -> Body:
        return Body(torch.empty(header.length, dtype=torch.uint8))

    def arrived(self, header: Header, body: Body | None) -> None:
        self.frames.append((header, bytes(body.memory) if body is not None else b""))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; the first blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        far.setblocking(False)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far


def frame(size: int, piece: int = 0) -> bytes:
    body = bytes(index % 251 for index in range(size))
    return pack_header(Kind.RESULT, piece, 7, memoryview(body)) + body


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0.5)[0])


def test_a_frame_that_comes_byte_by_byte_is_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    inbox = Inbox()
    stream = Stream(far, inbox, lambda stream: None)
    for byte in frame(3) + frame(2, piece=1):
        near.send(bytes([byte]))
        if select.select([far], [], [], 0.01)[0]:
            stream.receive()
    assert [(header.piece, body) for header, body in inbox.frames] == [(0, b"\0\1\2"), (1, b"\0\1")]


@pytest.mark.parametrize("first", [BATCH // 2, BATCH, 3 * BATCH])
def test_a_small_frame_behind_a_large_one_is_never_left_unread(
    ends: tuple[socket.socket, socket.socket], first: int
) -> None:
    """Whatever the kernel was told to wait for before, the last bytes of all wake the reader."""
    near, far = ends
    inbox = Inbox()
    stream = Stream(far, inbox, lambda stream: None)
    large, small = frame(first), frame(10, piece=1)
    parts = [large[: HEADER_SIZE + 5], large[HEADER_SIZE + 5 :] + small[:HEADER_SIZE], small[HEADER_SIZE:]]
    for part in parts:
        near.sendall(part)
        while readable(far):
            stream.receive()
    assert [len(body) for _, body in inbox.frames] == [first, 10]


def test_bytes_that_trickle_in_wake_the_reader_by_batches(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    stream = Stream(far, Inbox(), lambda stream: None)
    data = frame(2 * BATCH)
    near.sendall(data[:HEADER_SIZE])
    assert readable(far)
    stream.receive()
    near.sendall(data[HEADER_SIZE : HEADER_SIZE + 1000])
    assert not select.select([far], [], [], 0.05)[0]
    near.sendall(data[HEADER_SIZE + 1000 : HEADER_SIZE + BATCH])
    assert readable(far)


def test_what_is_sent_is_what_arrives(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    near.setblocking(False)
    inbox, sent = Inbox(), []
    bodies = [bytes([index]) * (index * 50_000) for index in range(1, 8)]
    queue = deque(
        Frame(pack_header(Kind.PARTIAL, i, 1, memoryview(b)), memoryview(b), lambda i=i: sent.append(i))  # type: ignore[misc]  # mypy does not infer a lambda with a default
        for i, b in enumerate(bodies)
    )
    sender = Stream(near, Inbox(), lambda stream: queue.popleft() if queue else None)
    receiver = Stream(far, inbox, lambda stream: None)
    while len(inbox.frames) < len(bodies):
        sender.send()
        if readable(far):
            receiver.receive()
    assert sent == list(range(7))
    assert [body for _, body in inbox.frames] == bodies
    assert not sender.writing


def test_an_end_between_frames_is_an_end_and_within_one_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    stream = Stream(far, Inbox(), lambda stream: None)
    near.sendall(frame(10) + frame(10)[:-1])
    assert readable(far)
    stream.receive()
    near.shutdown(socket.SHUT_WR)
    assert readable(far)
    with pytest.raises(PeerError, match="middle of a frame"):
        stream.receive()


def test_tcp_paces_a_stream_and_holds_back_none(ends: tuple[socket.socket, socket.socket]) -> None:
    limits = [int.from_bytes(end.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 8), sys.byteorder) for end in ends]
    assert limits == [2**64 - 1] * 2, "an unlimited connection sends its window in one burst"
    tune(ends[0], timeout=1.0)
    limit = int.from_bytes(ends[0].getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 8), sys.byteorder)
    assert 400e9 / 8 < limit < 2**64 - 1
