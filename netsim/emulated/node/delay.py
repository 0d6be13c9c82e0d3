"""The delay daemon: a process that holds every arriving packet until its delay has passed.

Packets wait in the kernel; the daemon sees their numbers and gives verdicts. It must wake in time, hence real-time
priority where that is allowed. If it dies, its queues have no reader and the kernel drops what arrives: a dead daemon
stops the traffic and never removes the delay.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from time import monotonic, sleep

from netsim.emulated.node.impairments import Fate
from netsim.emulated.node.nfqueue import DROP, QueueSocket
from netsim.emulated.node.punctuality import Backlog, Punctuality
from netsim.emulated.node.realtime import DELAY, set_realtime
from netsim.emulated.plan import Impairment

_AT_ONCE = 256  # packets read before what is due is released
_DENSE = 10_000.0  # packets a second from which they are read several at a time
_TOGETHER = 5e-5  # seconds that the first of them then waits for others to be read with
_OBSERVED = 64  # packets over which their rate is taken


class Crowd:
    """Whether packets come so fast that waking up for each would take a core."""

    def __init__(self) -> None:
        self.dense = False
        self._since, self._count = 0.0, 0

    def count(self, packets: int, now: float) -> None:
        self._count += packets
        if self._count >= _OBSERVED:
            self.dense = self._count > _DENSE * (now - self._since)
            self._since, self._count = now, 0


class Line:
    """One directed link: the packets of one source, waiting for their time of release."""

    def __init__(self, sockets: QueueSocket, queue: int, impairment: Impairment) -> None:
        self._sockets, self._queue = sockets, queue
        self._fate = Fate(impairment)
        self._ordered: deque[tuple[float, int]] = deque()
        self._unordered: list[tuple[float, int]] = []
        self._copies: list[tuple[float, bytes]] = []
        self._last = 0.0
        self._constant: float | None = None  # the delay of every packet, where nothing else happens to any
        self.change(impairment)
        self.lost = 0

    def change(self, impairment: Impairment) -> None:
        self._fate.change(impairment)
        plain = self._fate.constant and not self._fate.lossy and not impairment.reorder
        self._constant = impairment.delay if plain else None

    def arrive(self, packet: int, now: float, content: bytes = b"") -> None:
        """content: the packet itself, where copies may be made of it."""
        if self._constant is not None and not content:
            due = now + self._constant
            if due < self._last:
                due = self._last
            self._last = due
            self._ordered.append((due, packet))
            return
        fate = self._fate
        if fate.lossy and fate.lost():
            self.lost += 1
            self._sockets.verdict(self._queue, packet, DROP)
            return
        due = now + fate.delay()
        if fate.impairment.reorder:
            heappush(self._unordered, (due, packet))
        else:
            # A packet never overtakes an earlier one, also when the delay has just become shorter.
            self._last = due = max(due, self._last)
            self._ordered.append((due, packet))
        if content and fate.duplicated():
            heappush(self._copies, (due, content))

    def next_due(self) -> float:
        first = self._ordered[0][0] if self._ordered else float("inf")
        if self._unordered:
            first = min(first, self._unordered[0][0])
        return min(first, self._copies[0][0]) if self._copies else first

    def copies_due(self, now: float) -> list[bytes]:
        """Second copies whose time has come; the first ones were released no later."""
        found = []
        while self._copies and self._copies[0][0] <= now:
            found.append(heappop(self._copies)[1])
        return found

    def release(self, now: float) -> None:
        if self._unordered:
            due = []
            while self._unordered and self._unordered[0][0] <= now:
                due.append(heappop(self._unordered)[1])
            if due:
                self._sockets.accept(self._queue, due)
        ordered = self._ordered
        if not ordered or ordered[0][0] > now:
            return
        if self._unordered:  # a batch verdict would release these too
            due = []
            while ordered and ordered[0][0] <= now:
                due.append(ordered.popleft()[1])
            self._sockets.accept(self._queue, due)
            return
        packet = -1
        while ordered and ordered[0][0] <= now:
            packet = ordered.popleft()[1]
        self._sockets.accept_up_to(self._queue, packet)


def serve(queues: Sequence[tuple[int, Impairment]], copies: bool, control: socket.socket) -> None:
    """Runs until `control` is closed. A line [[queue, impairment], ...] changes links; the answer counts losses, and
    how punctual the daemon is.

    copies: whether a link duplicates packets, now or later; their contents are then read, which costs.
    """
    sockets = QueueSocket()
    lines: dict[int, Line] = {}
    for queue, impairment in queues:
        sockets.bind(queue, copy=copies)
        lines[queue] = Line(sockets, queue, impairment)
    granted = set_realtime(DELAY)
    control.sendall(json.dumps({"ready": True, "priority": granted, "pid": os.getpid()}).encode() + b"\n")
    gc.freeze()
    gc.disable()
    _hold(sockets, lines, Duplicator() if copies else None, control)


class Duplicator:
    """Delivers second copies of packets, by the loopback device, whose packets are not queued again."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def deliver(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(content, (socket.inet_ntoa(content[16:20]), 0))


def _hold(sockets: QueueSocket, lines: dict[int, Line], duplicator: Duplicator | None, control: socket.socket) -> None:
    everyone = list(lines.values())
    arrive = {queue: line.arrive for queue, line in lines.items()}
    pending = b""
    waited = [sockets.fileno(), control.fileno()]
    crowd, backlog, punctuality = Crowd(), Backlog(), Punctuality()
    while True:
        due = min((line.next_due() for line in everyone), default=float("inf"))
        if crowd.dense:
            sleep(max(0.0, min(_TOGETHER, due - monotonic())))
        entered = monotonic()
        timeout = None if due == float("inf") else max(0.0, due - entered)
        ready, _, _ = select.select(waited, [], [], timeout)
        waiting = waited[0] in ready
        backlog.waited(entered, monotonic(), waiting=waiting)
        packets, behind = 0, 0.0
        if waiting:
            packets = _read_whole(sockets, lines) if duplicator is not None else sockets.read(arrive, _AT_ONCE)
            now = monotonic()
            behind = backlog.read(now, all_of_them=packets < _AT_ONCE)
            crowd.count(packets, now)
        now = monotonic()
        if waiting or due <= now:
            punctuality.count(packets, max(behind, now - due), now)
        for line in everyone:
            line.release(now)
            if duplicator is not None:
                for content in line.copies_due(now):
                    duplicator.deliver(content)
        if waited[1] in ready:
            received = control.recv(1 << 20)
            if not received:
                return
            *messages, pending = (pending + received).split(b"\n")
            for message in messages:
                _obey(json.loads(message), lines, punctuality, control)


def _read_whole(sockets: QueueSocket, lines: dict[int, Line]) -> int:
    for count in range(_AT_ONCE):
        if (whole := sockets.read_whole()) is None:
            return count
        lines[whole[0]].arrive(whole[1], monotonic(), whole[2])
    return _AT_ONCE


def _obey(message: object, lines: dict[int, Line], punctuality: Punctuality, control: socket.socket) -> None:
    if isinstance(message, list):
        for queue, impairment in message:
            lines[queue].change(Impairment(**impairment))
    lost = {queue: line.lost for queue, line in lines.items()}
    control.sendall(json.dumps({"lost": lost, "daemon": punctuality.to_json()}).encode() + b"\n")
