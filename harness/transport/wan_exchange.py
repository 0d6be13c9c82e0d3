"""The exchange of one worker over the WAN: `algorithms.exchange.Exchange`, carried out by TCP.

Members that agree on a transfer give it the same key; a frame whose transfer this rank has not started yet is kept
until it has, up to a limit per peer, then left to TCP's flow control. A member that stops answering, or that answers
but never comes to a transfer, ends the wait with a PeerError that names it; the exchange is then to be closed, and a
new one connected among those that are left. After a PeerError the tensors of unfinished transfers hold garbage.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self, TextIO

import torch
from torch import Tensor

from harness.transport.buffers import Body, Pool
from harness.transport.collective_state import CollectiveState, Send, carrier
from harness.transport.frames import Header, Kind, transfer_identity, transfer_key
from harness.transport.ledger import Entry, Ledger
from harness.transport.mesh import connect_mesh, stream_counter
from harness.transport.peers import Disconnect, Peers
from netsim.errors import PeerError
from netsim.traffic import Algorithm, Transfer

STALL_SECONDS = 0.25  # without payload from anybody, after which a lost neighbour in a ring is taken to be missed
LEAVE_SECONDS = 1.0  # for what was sent to arrive, when a transfer has failed or is given up
EARLY_LIMIT = 256 * 10**6  # bytes per peer that may wait for a transfer to be started here


@dataclass(eq=False)
class WanHandle:
    """A transfer under way."""

    transfer: Transfer
    _waited: Callable[[float], None]
    _on_end: Callable[[], None] | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def wait(self) -> None:
        """Block until the tensor holds the result and may be changed. Raises PeerError if a member fails."""
        if not self._done.is_set():
            began = time.monotonic()
            self._done.wait()
            self._waited(time.monotonic() - began)
        if self._error is not None:
            raise self._error

    def done(self) -> bool:
        return self._done.is_set()

    def finish(self, error: BaseException | None = None) -> None:
        if not self._done.is_set():
            self._error = error
            self._done.set()
            if self._on_end is not None:
                self._on_end()


@dataclass(eq=False)
class _Running:
    step: int
    key: int
    algorithm: Algorithm
    carrier: CollectiveState
    handle: WanHandle
    began: float
    cold: bool
    sent: int = 0
    unsent: dict[int, int] = field(default_factory=dict)  # parcels not yet with the kernel, by peer
    asked: float | None = None  # when we asked the members whether they are there
    started_at: set[int] = field(default_factory=set)  # members that answered that they have started it


class WanExchange:
    """Carries out transfers for one worker over TCP. One thread may start and wait; a reactor thread does the work.

    ready_at: set by whoever paces the clock: the monotonic time before which the first byte of a transfer must not
    leave. waited_seconds: time that callers were blocked so far. ledger: payload bytes that this rank sent.
    """

    @classmethod
    def connect(
        cls,
        rank: int,
        world: int,
        addresses: Sequence[str],
        port: int | Sequence[int],
        token: str,
        streams: Callable[[int], int] | Mapping[int, int] | int = 1,
        algorithm: Callable[[Transfer], Algorithm] = lambda transfer: Algorithm.DIRECT,
        timeout: float = 60.0,
        members: Sequence[int] | None = None,
        ledger: TextIO | None = None,
        listener: socket.socket | None = None,
    ) -> Self:
        """Connect to the other members; returns when all streams stand.

        addresses: of `wan0`, by rank; port: of all, or by rank; listener: already bound to ours; token: the run's id
        and generation; streams: per peer, decided by the higher rank of a pair; algorithm: of an all-reduce that leaves
        it open; timeout: seconds until a silent or late peer is given up, here and in every transfer; members: the
        ranks that take part, all `world` unless given; ledger: receives one JSON line per transfer. Raises PeerError
        and HostError like `connect_mesh`.
        """
        ranks = range(world) if members is None else members
        mesh = connect_mesh(rank, ranks, addresses, port, token, stream_counter(streams), timeout, listener)
        return cls(rank, world, Peers(mesh, timeout), algorithm, timeout, Ledger(ledger))

    def __init__(
        self,
        rank: int,
        world: int,
        peers: Peers,
        algorithm: Callable[[Transfer], Algorithm],
        timeout: float,
        ledger: Ledger,
    ) -> None:
        self.rank, self.world, self.ledger = rank, world, ledger
        self.ready_at: Callable[[Transfer], float] | None = None
        self.waited_seconds = 0.0
        self._peers, self._algorithm, self._timeout = peers, algorithm, timeout
        self._pool = Pool()
        self._running: dict[int, _Running] = {}
        self._unexpected: dict[int, list[tuple[int, Header, Body]]] = {}
        self._early_bytes: dict[int, int] = {}
        self._warm: set[int] = set()
        self._handles: set[WanHandle] = set()
        self._failed = False
        self._ended: BaseException | None = None
        peers.start(self)

    @property
    def refused(self) -> int:
        """Connections that were turned away because they did not belong to the run."""
        return self._peers.refused

    @property
    def members(self) -> tuple[int, ...]:
        return self._peers.members

    def start(
        self,
        step: int,
        transfer: Transfer,
        tensor: Tensor,
        not_before: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> WanHandle:
        """Begin `transfer` on `tensor`; nothing of it leaves before the monotonic time `not_before`.

        on_end is called by the reactor's thread, which it must not hold up, once it has ended, well or not."""
        assert self.rank in transfer.members, (self.rank, transfer)
        algorithm = transfer.carried_out_by
        if algorithm is Algorithm.AUTO:
            algorithm = self._algorithm(transfer)
        key = transfer_key(step, transfer, algorithm)
        if not_before is None and self.ready_at is not None:
            not_before = self.ready_at(transfer)
        began = max(time.monotonic(), not_before or 0.0)
        handle = WanHandle(transfer, self._count_wait, on_end)
        with torch.no_grad():
            ours = carrier(self.rank, transfer, algorithm, tensor, self._pool)
        running = _Running(step, key, algorithm, ours, handle, began, cold=not self._warm.issuperset(ours.others))
        self._handles.add(handle)
        self._peers.reactor.submit(partial(self._open, running))
        if self._ended is not None:  # the reactor may have ended before it could see this transfer
            handle.finish(self._ended)
        return handle

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        """Start all, then wait for all."""
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()

    def inject_bytes(self, peer: int, message: bytes, hang_up: bool = False) -> None:
        """What a faulty worker may do to `peer`: put bytes on a connection that are no frame, and end it if `hang_up`.

        For declared faults and for tests; nothing that a transfer needs goes this way.
        """
        self._peers.send_raw(peer, message, hang_up)

    def close(self) -> None:
        """Say goodbye, wait until the peers' kernels have what we sent, and disconnect. Unfinished transfers fail."""
        unfinished = self._failed or bool(self._running)
        self._peers.close(min(LEAVE_SECONDS, self._timeout) if unfinished else self._timeout)

    def drain(self, seconds: float) -> None:
        """Wait until all transfers that were started are done and the peers' kernels have what was sent for them.

        Gives up after `seconds`. What happens to this process afterwards costs nobody a result of an earlier step.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self._handles or not self._peers.delivered()):
            time.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _count_wait(self, seconds: float) -> None:
        self.waited_seconds += seconds

    # --- in the reactor's thread, without gradients -------------------------------------------------------------------

    def _open(self, running: _Running) -> None:
        assert running.key not in self._running, f"{running.handle.transfer} started twice"
        self._running[running.key] = running
        for key in [key for key in self._unexpected if self._disagrees(running.key, key)]:
            self._fail_disagreeing(running, self._unexpected[key][0][0])
            return
        for source, header, body in self._unexpected.pop(running.key, []):
            self._early_bytes[source] -= header.length
            self._peers.pause(source, False)
            try:
                running.carrier.room(header.kind, source, header.piece, header.length)
            except PeerError as error:
                why = Disconnect(str(error), corrupt=error.corrupt)
                self._peers.drop(source, why)
                self._fail_without(running, source, why)  # if nothing more was expected of it
                return
            self._send(running, running.carrier.arrived(header.kind, source, header.piece, body))
        for peer in running.carrier.others:  # one that has left may have sent its part before
            if (parting := self._peers.gone(peer)) is not None and running.carrier.expects(peer):
                self._fail_without(running, peer, parting)
                return
        if running.began <= time.monotonic():
            self._begin(running)
        else:
            running.unsent[self.rank] = 1  # what is to come from ourselves
            self._peers.reactor.at(running.began, partial(self._begin, running))

    def _begin(self, running: _Running) -> None:
        if self._running.get(running.key) is running:
            running.unsent.pop(self.rank, None)
            self._send(running, running.carrier.begin())
            self._settle(running)

    def _send(self, running: _Running, parcels: list[Send]) -> None:
        for parcel in parcels:
            if (parting := self._peers.gone(parcel.target)) is not None:
                self._fail_without(running, parcel.target, parting)
                return
            running.unsent[parcel.target] = running.unsent.get(parcel.target, 0) + 1
            self._peers.send(parcel.target, running.key, parcel, partial(self._sent, running, parcel))
        self._peers.flush({parcel.target for parcel in parcels})

    def _sent(self, running: _Running, parcel: Send, payload: int, header: int) -> None:
        running.carrier.on_sent(parcel)
        running.sent += payload
        self.ledger.count(running.step, running.handle.transfer.name, payload, header)
        running.unsent[parcel.target] -= 1
        if not running.unsent[parcel.target]:
            del running.unsent[parcel.target]
            self._settle(running)

    def _settle(self, running: _Running) -> None:
        """Finish the transfer if nothing is left to receive or to send."""
        if running.unsent or not running.carrier.complete or self._running.get(running.key) is not running:
            return
        del self._running[running.key]
        self._warm.update(running.carrier.others)
        transfer = running.handle.transfer
        self.ledger.finish(
            Entry(
                step=running.step,
                transfer=transfer.name,
                phase=transfer.phase,
                algorithm=running.algorithm.value,
                members=len(transfer.members),
                payload_bytes=running.sent,
                started=running.began,
                seconds=time.monotonic() - running.began,
                cold=running.cold,
            )
        )
        self._handles.discard(running.handle)
        running.handle.finish()

    def room(self, source: int, header: Header) -> Body:
        """Memory for a body from `source` (called by its stream)."""
        if (running := self._running.get(header.key)) is not None:
            return running.carrier.room(header.kind, source, header.piece, header.length)
        return self._pool.take(header.length)

    def arrived(self, source: int, header: Header, body: Body) -> None:
        """A whole body from `source`."""
        if (running := self._running.get(header.key)) is not None:
            self._send(running, running.carrier.arrived(header.kind, source, header.piece, body))
            self._settle(running)
            return
        for running in [one for one in self._running.values() if self._disagrees(one.key, header.key)]:
            self._fail_disagreeing(running, source)
            return
        self._unexpected.setdefault(header.key, []).append((source, header, body))
        self._early_bytes[source] = self._early_bytes.get(source, 0) + header.length
        if self._early_bytes[source] > EARLY_LIMIT:
            self._peers.pause(source, True)

    @staticmethod
    def _disagrees(ours: int, theirs: int) -> bool:
        """Whether two keys name one transfer, but in two forms."""
        return ours != theirs and transfer_identity(ours) == transfer_identity(theirs)

    def _fail_disagreeing(self, running: _Running, peer: int) -> None:
        transfer = running.handle.transfer
        ours = f"{transfer.elements} numbers as {transfer.wire}, {running.algorithm}"
        error = f"{self._peers.name(peer)} has another size, type or algorithm for this transfer; here: {ours}"
        self._fail(running, PeerError(error))
        self._peers.say(peer, Kind.PING, running.key)  # which it will find to disagree, too

    def has_started(self, source: int, key: int) -> bool:
        """Asked by `source`."""
        for running in [one for one in self._running.values() if self._disagrees(one.key, key)]:
            self._fail_disagreeing(running, source)
        return key in self._running

    def answered(self, source: int, key: int, started: bool) -> None:
        if (running := self._running.get(key)) is not None and started:
            running.started_at.add(source)

    def lost(self, peer: int, parting: Disconnect) -> None:
        """`peer` is connected no longer. It may have done all that it had to: then the others' part goes on."""
        for running in list(self._running.values()):
            if peer not in running.carrier.others:
                continue
            if running.carrier.expects(peer) or peer in running.unsent:
                self._fail_without(running, peer, parting)
            elif not parting.orderly and running.algorithm is Algorithm.RING:  # others depend on it, and we on them
                self._watch_without(running, peer, parting)

    def _watch_without(self, running: _Running, peer: int, parting: Disconnect) -> None:
        """Go on without a peer of whom nothing more is expected, for as long as the others' payload moves."""

        def look() -> None:
            if self._running.get(running.key) is not running:
                return
            owing = (running.carrier.owing() | running.unsent.keys()) - {self.rank, peer}
            if any(time.monotonic() - self._peers.moved(other) < STALL_SECONDS for other in owing):
                self._peers.reactor.at(time.monotonic() + STALL_SECONDS / 4, look)
            else:
                self._fail_without(running, peer, parting)

        self._peers.reactor.at(time.monotonic() + STALL_SECONDS, look)

    def tick(self) -> None:
        """Give up what nobody works on any more."""
        now = time.monotonic()
        for running in list(self._running.values()):
            owing = (running.carrier.owing() | running.unsent.keys()) - {self.rank}
            quiet = now - max([running.began, *(self._peers.moved(peer) for peer in owing)])
            if self.rank in running.unsent or quiet < self._timeout / 2:
                running.asked = None
            elif running.asked is None:
                running.asked = now
                running.started_at.clear()
                for peer in running.carrier.others:
                    self._peers.say(peer, Kind.PING, running.key)
            elif quiet > self._timeout:
                self._fail(running, self._complaint(running, owing))

    def _complaint(self, running: _Running, owing: set[int]) -> PeerError:
        """What to say of whom, and who of them cannot be reached: not those who are there and only late."""
        assert running.asked is not None
        name, waited = self._peers.name, f"within {self._timeout:g} s"
        others = running.carrier.others
        if silent := [peer for peer in others if self._peers.heard(peer) < running.asked]:
            return PeerError(f"{' and '.join(map(name, silent))} did not answer {waited}", tuple(silent))
        if late := [peer for peer in others if peer not in running.started_at]:
            return PeerError(f"{' and '.join(map(name, late))} did not come {waited}", late=True)
        return PeerError(f"{' and '.join(map(name, sorted(owing)))} sent nothing {waited}", tuple(sorted(owing)))

    def _fail_without(self, running: _Running, peer: int, parting: Disconnect) -> None:
        suspects = () if parting.orderly else (peer,)
        error = PeerError(f"{self._peers.name(peer)} {parting.why}", suspects, parting.hung_up, parting.corrupt)
        self._fail(running, error)

    def _fail(self, running: _Running, error: PeerError) -> None:
        if self._running.pop(running.key, None) is running:
            self._failed = True
            self._handles.discard(running.handle)
            self._peers.withdraw(running.key)
            where = f"step {running.step}, {running.handle.transfer.name!r}"
            running.handle.finish(
                PeerError(f"{error} ({where})", error.ranks, error.hung_up, error.corrupt, error.late)
            )

    def ended(self, error: BaseException | None) -> None:
        """The reactor has stopped; `error` if it was not asked to."""
        self._ended = error if error is not None else PeerError("the exchange was closed")
        for handle in list(self._handles):
            handle.finish(self._ended)
        self._running.clear()
