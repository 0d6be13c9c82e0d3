"""The peers of a worker: their streams, what waits to be sent to each, and whether they are still there.

Each peer has one queue, and each of its streams takes the next parcel whenever the kernel has room on it: a stream
that is slow, after a loss for instance, simply takes fewer. `TCP_NOTSENT_LOWAT` keeps that room small, so that bytes
are committed to a stream only shortly before it can send them. Towards the end of a queue a slow stream takes nothing
that the others would have delivered sooner: without this, two streams of unequal windows took 430 ms at 1 Gbit/s x
50 ms for what one did in 340 (earliest completion first: Lim et al., CoNEXT 2017, for all parcels that wait).
"""

from __future__ import annotations

import array
import fcntl
import select
import socket
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol

from harness.transport.buffers import Body
from harness.transport.collective_state import Send
from harness.transport.frames import Header, Kind, pack_header
from harness.transport.limits import TICKS
from harness.transport.mesh import TCP_NOTSENT_LOWAT, Mesh, tune
from harness.transport.reactor import Reactor
from harness.transport.stream import Frame, Stream
from netsim.collectives import first_to_deliver, unsent_limit
from netsim.errors import PeerError

END = 1 << 22  # bytes in a queue below which its end is near
AHEAD = 64  # parcels of it that are looked at


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a peer is no longer connected. orderly: it had said goodbye. hung_up: it ended the connection itself.
    corrupt: it sent what no sound peer sends.
    """

    why: str
    orderly: bool = False
    hung_up: bool = False
    corrupt: bool = False


class PeerHandler(Protocol):
    """What the peers report to; `harness.transport.wan_exchange.WanExchange`."""

    def room(self, source: int, header: Header) -> Body: ...
    def arrived(self, source: int, header: Header, body: Body) -> None: ...
    def has_started(self, source: int, key: int) -> bool: ...
    def answered(self, source: int, key: int, started: bool) -> None: ...
    def lost(self, peer: int, parting: Disconnect) -> None: ...
    def tick(self) -> None: ...
    def ended(self, error: BaseException | None) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    key: int
    kind: Kind
    piece: int
    parcel: Send | None = None
    sent: Callable[[int, int], None] | None = None

    @property
    def size(self) -> int:
        return self.parcel.size if self.parcel is not None else 0


@dataclass(eq=False)
class _Peer:
    rank: int
    owner: PeerHandler
    streams: list[Stream] = field(default_factory=list)
    queue: deque[_Waiting] = field(default_factory=deque)
    queued: int = 0  # bytes of the bodies in the queue
    goodbyes: int = 0
    gone: Disconnect | None = None
    leaving: bool = False  # about to be gone
    say: Callable[[int, Kind, int, int], None] | None = None
    offer: Callable[[], None] | None = None  # the queue to the streams, once this turn is over

    def fetch(self, stream: Stream) -> Frame | None:
        if not self.queue:
            return None
        if stream not in (suited := self._suited()):
            if not all(other.writing for other in suited):  # one of them has room, and nothing else would wake it
                assert self.offer is not None
                self.offer()
            return None
        waiting = self.queue.popleft()
        self.queued -= waiting.size
        body = waiting.parcel.body().memory if waiting.parcel is not None else None
        header = pack_header(waiting.kind, waiting.piece, waiting.key, body)
        return Frame(header, body, partial(self._sent, waiting, len(body or b""), len(header)))

    def _suited(self) -> list[Stream]:
        """The streams that may take the next frame: all of them, but towards the end of the queue."""
        if len(self.streams) == 1 or self.queued >= END:
            return self.streams
        sizes = (waiting.size for waiting in islice(self.queue, AHEAD))
        places = soon_enough([stream.pace() for stream in self.streams], sizes)
        return [self.streams[place] for place in places]

    def _sent(self, waiting: _Waiting, payload: int, header: int) -> None:
        if waiting.sent is not None:
            waiting.sent(payload, header)

    def room(self, header: Header) -> Body:
        return self.owner.room(self.rank, header)

    def arrived(self, header: Header, body: Body | None) -> None:
        if body is not None:
            self.owner.arrived(self.rank, header, body)
        elif header.kind is Kind.PING:
            assert self.say is not None
            self.say(self.rank, Kind.PONG, header.key, int(self.owner.has_started(self.rank, header.key)))
        elif header.kind is Kind.PONG:
            self.owner.answered(self.rank, header.key, bool(header.piece))
        elif header.kind is Kind.GOODBYE:
            self.goodbyes += 1


def soon_enough(paces: Sequence[tuple[int, float]], sizes: Iterable[int]) -> list[int]:
    """The connections that get any of the next frames if each of these goes to the one that delivers it first. Others
    would still be busy with one when all are delivered.

    paces: of each connection, bytes ahead of them, and bytes per second.  sizes: of the frames that wait, in bytes.
    """
    ahead, rates, used = [size for size, _ in paces], [rate for _, rate in paces], set[int]()
    for size in sizes:
        place = first_to_deliver(ahead, rates, size)
        ahead[place] += size
        used.add(place)
        if len(used) == len(paces):
            break
    return sorted(used)


class Peers:
    """All peers, driven by one reactor."""

    def __init__(self, mesh: Mesh, timeout: float) -> None:
        self.members, self.refused = mesh.members, mesh.refused
        self._mesh, self._timeout = mesh, timeout
        self._peers: dict[int, _Peer] = {}
        self._closing = False

    def start(self, owner: PeerHandler) -> None:
        self.reactor = Reactor(f"wan-{self._mesh.rank}", partial(self._end, owner))
        for rank, sockets in self._mesh.streams.items():
            self._peers[rank] = peer = _Peer(rank, owner)
            peer.say = self.say
            peer.offer = partial(self.reactor.at, 0.0, partial(self.flush, [rank]))
            for sock in sockets:
                tune(sock, self._timeout)
                sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, unsent_limit(len(sockets)))
                stream = Stream(sock, peer, peer.fetch)
                peer.streams.append(stream)
                self.reactor.watch(stream, partial(self._broken, rank, stream), partial(self._stream_ended, peer))
        self.reactor.listen(self._mesh.listener, self._refuse)
        self._tick(owner)
        self.reactor.start()

    def name(self, peer: int) -> str:
        return f"rank {peer} ({self._mesh.addresses[peer]})"

    def gone(self, peer: int) -> Disconnect | None:
        """Why `peer` is no longer connected; None if it is."""
        return self._peers[peer].gone if peer in self._peers else Disconnect("is not connected")

    def moved(self, peer: int) -> float:
        return max(stream.moved for stream in self._peers[peer].streams)

    def heard(self, peer: int) -> float:
        """When `peer` last sent anything; a peer without a connection never did."""
        return max((stream.heard for stream in self._peers[peer].streams), default=0.0) if peer in self._peers else 0.0

    def send(self, peer: int, key: int, parcel: Send, sent: Callable[[int, int], None]) -> None:
        """Queue a parcel; `sent(payload, header)` is told the bytes once the kernel has them."""
        self._peers[peer].queue.append(_Waiting(key, parcel.kind, parcel.piece, parcel, sent))
        self._peers[peer].queued += parcel.size

    def say(self, peer: int, kind: Kind, key: int, piece: int = 0) -> None:
        """A frame without a body, ahead of everything that waits."""
        if self.gone(peer) is None:
            self._peers[peer].queue.appendleft(_Waiting(key, kind, piece))
            self.flush([peer])

    def flush(self, peers: Iterable[int]) -> None:
        """Offer what is queued to the streams that have room."""
        for rank in peers:
            peer = self._peers[rank]
            for stream in list(peer.streams):
                if not peer.queue:
                    break
                self.reactor.send(stream)

    def withdraw(self, key: int) -> None:
        """Forget what waits to be sent of a transfer."""
        for peer in self._peers.values():
            peer.queue = deque(waiting for waiting in peer.queue if waiting.key != key)
            peer.queued = sum(waiting.size for waiting in peer.queue)

    def pause(self, peer: int, paused: bool) -> None:
        for stream in self._peers[peer].streams:
            self.reactor.pause(stream, paused)

    def delivered(self) -> bool:
        """Whether everything that was queued for living peers is with their kernels; from any thread."""
        living = [peer for peer in self._peers.values() if peer.gone is None]
        if any(peer.queue for peer in living):
            return False
        return not any(not stream.idle or _unacknowledged(stream.sock) for peer in living for stream in peer.streams)

    def drop(self, rank: int, parting: Disconnect, broken: Stream | None = None) -> None:
        """Disconnect a peer, and say why to whoever waits for it. broken: the stream that cannot be read any more."""
        peer = self._peers[rank]
        if peer.gone is None and not peer.leaving:
            peer.leaving = True
            _take_in_rest(stream for stream in peer.streams if stream is not broken)
            peer.gone = parting
            for stream in peer.streams:
                self.reactor.forget(stream)
                stream.sock.close()
            peer.queue.clear()
            peer.queued = 0
            peer.owner.lost(rank, parting)

    def send_raw(self, peer: int, message: bytes, hang_up: bool) -> None:
        """Bytes as they are, neither framed nor counted, on the first stream to `peer`; from any thread."""
        sock = self._peers[peer].streams[0].sock

        def send() -> None:
            sock.send(message)
            if hang_up:
                sock.shutdown(socket.SHUT_WR)

        self.reactor.submit(send)

    def close(self, patience: float) -> None:
        """Say goodbye and wait, at most `patience` seconds, until the peers' kernels have everything."""
        self.reactor.submit(partial(self._close, time.monotonic() + patience))
        self.reactor.join(patience + 5.0)

    def _tick(self, owner: PeerHandler) -> None:
        for peer in self._peers.values():
            for stream in peer.streams if peer.gone is None else ():
                stream.observe()
        owner.tick()
        self.reactor.at(time.monotonic() + min(self._timeout / TICKS, 1.0), partial(self._tick, owner))

    def _broken(self, rank: int, stream: Stream, error: PeerError) -> None:
        self.drop(rank, Disconnect(str(error), hung_up=error.hung_up, corrupt=error.corrupt), stream)

    def _stream_ended(self, peer: _Peer) -> None:
        """Every stream says goodbye before it ends: one more end than goodbyes, and the peer did not mean it."""
        ended = sum(stream.ended for stream in peer.streams)
        if ended > peer.goodbyes:
            self.drop(peer.rank, Disconnect("closed its connection", hung_up=True))
        elif ended == len(peer.streams):
            self.drop(peer.rank, Disconnect("has left", orderly=True))

    def _refuse(self) -> None:
        try:
            self._mesh.listener.accept()[0].close()
        except OSError:
            return
        self.refused += 1

    def _close(self, deadline: float) -> None:
        if not self._closing:
            self._closing = True
            for peer in self._peers.values():
                for stream in peer.streams if peer.gone is None else ():
                    stream.last = Frame(pack_header(Kind.GOODBYE, 0, 0))
                    self.reactor.send(stream)
        self._leave(deadline, set())

    def _leave(self, deadline: float, shut: set[Stream]) -> None:
        """Close each direction once it is empty; stop when the kernels of all peers have acknowledged everything."""
        open_streams = [s for peer in self._peers.values() if peer.gone is None for s in peer.streams if not s.ended]
        for stream in open_streams:
            if stream.idle and stream.last is None and stream not in shut:
                shut.add(stream)
                try:
                    stream.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
        if time.monotonic() < deadline and any(s not in shut or _unacknowledged(s.sock) for s in open_streams):
            self.reactor.at(time.monotonic() + 0.005, partial(self._leave, deadline, shut))
        else:
            self.reactor.stop()

    def _end(self, owner: PeerHandler, error: BaseException | None) -> None:
        owner.ended(error)
        self._mesh.listener.close()
        for peer in self._peers.values():
            for stream in peer.streams:
                stream.sock.close()


def _take_in_rest(streams: Iterable[Stream]) -> None:
    """Receive what a peer had sent on its other streams before one of them ended or broke."""
    for stream in streams:
        with suppress(OSError, PeerError, ValueError):  # ValueError: it is closed
            while not stream.ended and select.select([stream.sock], [], [], 0)[0]:
                stream.receive()


def _unacknowledged(sock: socket.socket) -> bool:
    """Whether bytes that we sent have not been acknowledged (SIOCOUTQ; a FIN under way counts as one)."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    except (OSError, ValueError):
        return False
    return count[0] > 1
