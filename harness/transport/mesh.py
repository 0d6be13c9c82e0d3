"""Connecting the members of a run to each other: every stream of every pair at once.

The higher rank of a pair calls the lower. All calls go out together, so a member is connected two round trips after
the last one listens: one for TCP, one for the hellos, which both sides check; the caller's confirmation travels with
its first bytes. A call that nobody answers yet, or that reaches a member of another generation of the run, is repeated
until the deadline. A caller without the run's token, or from an address that is not its rank's, learns nothing and
disturbs nobody.
"""

from __future__ import annotations

import errno
import hmac
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.transport.frames import (
    CONFIRMATION_SIZE,
    HELLO_SIZE,
    Hello,
    confirmation,
    make_hello,
    pack_hello,
    proves,
    unpack_hello,
)
from netsim.errors import HostError, PeerError

AGAIN = 0.05  # seconds until a call that was not answered is repeated
PATIENCE = 5.0  # seconds that a caller has to present its hello
STREAM_LIMIT = 64
WINDOW = 1 << 24  # bytes that a stream may receive ahead of its reader from the start
STRANGER_LIMIT = 256
TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # Linux; named in Python from 3.12 on
SO_MAX_PACING_RATE = 47  # Linux; not named in Python
FASTEST = 10**12  # bytes/s: any limit makes TCP pace its packets, and no link reaches this one


@dataclass(frozen=True)
class Mesh:
    """Connected, non-blocking sockets by peer, in the order of their stream numbers; and the port, still listening."""

    rank: int
    addresses: Sequence[str]
    listener: socket.socket
    streams: dict[int, list[socket.socket]]
    refused: int

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted([self.rank, *self.streams]))


@dataclass(eq=False)
class _Line:
    """A connection on its way to being a stream."""

    sock: socket.socket
    since: float
    hello: Hello | None  # what we said; None: they called us and speak first
    connected: bool = False
    heard: bytearray = field(default_factory=bytearray)
    caller: Hello | None = None  # theirs, once we have answered it
    answer: Hello | None = None  # ours to them, which they must confirm


def connect_mesh(
    rank: int,
    members: Sequence[int],
    addresses: Sequence[str],
    port: int | Sequence[int],
    token: str,
    streams: Callable[[int], int],
    timeout: float,
    listener: socket.socket | None = None,
) -> Mesh:
    """Connect `rank` to all other `members`.

    addresses: IPv4 addresses by rank, of the interfaces to use; port: of all, or by rank;
    token: names the run and its generation; listener: already bound to ours;
    streams: how many connections to have with a peer (the higher rank of a pair decides); timeout: seconds.
    Raises PeerError naming the members that could not be reached, HostError if the port cannot be had.
    """
    ports = [port] * len(addresses) if isinstance(port, int) else port
    listener = listener or listen(addresses[rank], ports[rank])
    work = _Connecting(rank, addresses, ports, token, listener)
    try:
        for peer in members:
            if peer < rank:
                count = min(max(1, streams(peer)), STREAM_LIMIT)
                work.wanted[peer] = count
                for stream in range(count):
                    work.call(make_hello(token, rank, peer, stream, count))
            elif peer > rank:
                work.wanted[peer] = None
        return work.finish(time.monotonic() + timeout, timeout)
    except BaseException:
        listener.close()
        for sock in work.sockets():
            sock.close()
        raise
    finally:
        work.selector.close()


def stream_counter(streams: Callable[[int], int] | Mapping[int, int] | int) -> Callable[[int], int]:
    """Connections by peer, from a number for all of them, one for each, or a function."""
    if isinstance(streams, int):
        return lambda peer: streams
    return streams.__getitem__ if isinstance(streams, Mapping) else streams


def tune(sock: socket.socket, timeout: float) -> None:
    """What every stream needs: no waiting for company, an end when the peer acknowledges nothing any more, a receive
    window that does not hold back slow start, and pacing.

    The kernel grows a receive buffer only after the sender has filled it, which cost a cold exchange several round
    trips. Asking to be woken at `WINDOW` bytes makes it grow at once, up to half of tcp_rmem, without SO_RCVBUF, which
    would end its automatic growth.

    All streams of a collective begin at once. In bursts their windows meet in the queue of the access link, and cubic
    takes that delay for a full link and ends slow start (HyStart, RFC 9406) far below it: at 1 Gbit/s x 200 ms, four
    sites, warm all-reduces took 0.6 s in bursts and 0.42 s paced, where 0.51 s is the bound.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WINDOW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("Q", FASTEST))


def listen(address: str, port: int) -> socket.socket:
    """A port for the others to call, any free one for 0. Raises HostError if it cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen on {address}:{port} for WAN connections: {error.strerror}") from None
    listener.listen(1024)
    listener.setblocking(False)
    return listener


class _Connecting:
    def __init__(
        self, rank: int, addresses: Sequence[str], ports: Sequence[int], token: str, listener: socket.socket
    ) -> None:
        self.rank, self.addresses, self.ports, self.token, self.listener = rank, addresses, ports, token, listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.wanted: dict[int, int | None] = {}  # streams per peer; None: the peer will tell
        self.made: dict[int, dict[int, socket.socket]] = {}
        self.lines: set[_Line] = set()
        self.again: list[tuple[float, Hello]] = []
        self.refused = 0
        self.last_refusal: dict[int, str] = {}

    def sockets(self) -> list[socket.socket]:
        return [*(line.sock for line in self.lines), *(s for peer in self.made.values() for s in peer.values())]

    def call(self, hello: Hello) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        line = _Line(sock, time.monotonic(), hello)
        self.lines.add(line)
        sock.bind((self.addresses[self.rank], 0))
        code = sock.connect_ex((self.addresses[hello.target], self.ports[hello.target]))
        if code not in (0, errno.EINPROGRESS):
            self._hang_up(line, os.strerror(code))
        else:
            self.selector.register(sock, selectors.EVENT_WRITE, line)

    def finish(self, deadline: float, timeout: float) -> Mesh:
        while missing := [p for p, count in self.wanted.items() if count is None or len(self.made.get(p, ())) < count]:
            now = time.monotonic()
            if now > deadline:
                named = "; ".join(f"rank {p} ({self.addresses[p]}): {self._why(p)}" for p in missing)
                raise PeerError(f"not connected within {timeout:g} s: {named}", tuple(missing))
            for due, hello in [entry for entry in self.again if entry[0] <= now]:
                self.again.remove((due, hello))
                self.call(make_hello(self.token, hello.source, hello.target, hello.stream, hello.streams))
            for line in [line for line in self.lines if line.hello is None and now - line.since > PATIENCE]:
                self._hang_up(line, "said nothing")
            for key, _ in self.selector.select(min(deadline - now, AGAIN)):
                if key.fileobj is self.listener:
                    self._answer()
                elif key.data in self.lines:
                    self._proceed(key.data)
        for line in list(self.lines):
            self._hang_up(line, "came when all were there")
        streams = {peer: [made[index] for index in sorted(made)] for peer, made in self.made.items()}
        return Mesh(self.rank, self.addresses, self.listener, streams, self.refused)

    def _why(self, peer: int) -> str:
        return self.last_refusal.get(peer, "did not call" if peer > self.rank else "did not answer")

    def _answer(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        callers = [line for line in self.lines if line.hello is None]
        if len(callers) >= STRANGER_LIMIT:
            self._hang_up(min(callers, key=lambda line: line.since), "made room")
        line = _Line(sock, time.monotonic(), None, connected=True)
        self.lines.add(line)
        self.selector.register(sock, selectors.EVENT_READ, line)

    def _proceed(self, line: _Line) -> None:
        try:
            if not line.connected:
                assert line.hello is not None
                if code := line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, os.strerror(code))
                line.connected = True
                line.sock.send(pack_hello(line.hello))
                self.selector.modify(line.sock, selectors.EVENT_READ, line)
                return
            whole = CONFIRMATION_SIZE if line.answer is not None else HELLO_SIZE
            data = line.sock.recv(whole - len(line.heard))
            if not data:
                raise PeerError("hung up")
            line.heard += data
            if len(line.heard) < whole:
                return
            if line.answer is not None:
                self._confirmed(line)
            elif line.hello is not None:
                self._answered(line, line.hello, unpack_hello(bytes(line.heard)))
            else:
                self._called(line, unpack_hello(bytes(line.heard)))
        except (OSError, PeerError) as error:
            self._hang_up(line, (isinstance(error, OSError) and error.strerror) or str(error))

    def _answered(self, line: _Line, ours: Hello, theirs: Hello) -> None:
        """The answer to our call, whole: confirm it and take the stream, or raise PeerError."""
        if theirs.target != self.rank or not proves(theirs, self.token, answered=ours.nonce):
            raise PeerError("does not belong to this run")
        if (theirs.source, theirs.stream) != (ours.target, ours.stream):
            raise PeerError("answered for somebody else")
        line.sock.send(confirmation(self.token, theirs.nonce))
        self._take(line, theirs)

    def _called(self, line: _Line, theirs: Hello) -> None:
        """A caller's hello, whole: answer it, or raise PeerError."""
        if theirs.target != self.rank or not proves(theirs, self.token):
            raise PeerError("does not belong to this run")
        known = theirs.source > self.rank and theirs.source in self.wanted
        told = self.wanted.get(theirs.source)
        if not known or not theirs.stream < theirs.streams <= STREAM_LIMIT or told not in (None, theirs.streams):
            raise PeerError("is not expected")
        if line.sock.getpeername()[0] != self.addresses[theirs.source]:
            raise PeerError("calls from an address that is not its rank's")
        line.caller = theirs
        line.answer = make_hello(self.token, self.rank, theirs.source, theirs.stream, theirs.streams, theirs.nonce)
        line.heard.clear()
        line.sock.send(pack_hello(line.answer))

    def _confirmed(self, line: _Line) -> None:
        """The caller's confirmation, whole: take the stream, or raise PeerError."""
        assert line.answer is not None
        assert line.caller is not None
        if not hmac.compare_digest(bytes(line.heard), confirmation(self.token, line.answer.nonce)):
            raise PeerError("does not belong to this run")
        if line.caller.stream in self.made.get(line.caller.source, {}):
            raise PeerError("called twice")
        self.wanted[line.caller.source] = line.caller.streams
        self._take(line, line.caller)

    def _take(self, line: _Line, theirs: Hello) -> None:
        self.selector.unregister(line.sock)
        self.lines.remove(line)
        self.made.setdefault(theirs.source, {})[theirs.stream] = line.sock

    def _hang_up(self, line: _Line, why: str) -> None:
        self.lines.discard(line)
        if line.sock in self.selector.get_map():
            self.selector.unregister(line.sock)
        line.sock.close()
        if line.hello is None:
            self.refused += 1
        else:
            self.last_refusal[line.hello.target] = why
            self.again.append((time.monotonic() + AGAIN, line.hello))
