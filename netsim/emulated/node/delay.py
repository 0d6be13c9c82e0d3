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
from time import monotonic

from netsim.emulated.node.impairments import Fate
from netsim.emulated.node.nfqueue import DROP, QueueSocket
from netsim.emulated.node.realtime import DELAY, set_realtime
from netsim.emulated.plan import Impairment

_AT_ONCE = 256  # packets read before what is due is released


class Line:
    """One directed link: the packets of one source, waiting for their time of release."""

    def __init__(self, sockets: QueueSocket, queue: int, impairment: Impairment) -> None:
        self._sockets, self._queue = sockets, queue
        self._fate = Fate(impairment)
        self._ordered: deque[tuple[float, int]] = deque()
        self._unordered: list[tuple[float, int]] = []
        self._copies: list[tuple[float, bytes]] = []
        self._last = 0.0
        self.lost = 0

    def change(self, impairment: Impairment) -> None:
        self._fate.change(impairment)

    def arrive(self, packet: int, now: float, content: bytes = b"") -> None:
        """content: the packet itself, where copies may be made of it."""
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
    """Runs until `control` is closed. A line [[queue, impairment], ...] changes links; the answer counts losses.

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
    read = sockets.read
    pending = b""
    waited = [sockets.fileno(), control.fileno()]
    while True:
        due = min((line.next_due() for line in everyone), default=float("inf"))
        timeout = None if due == float("inf") else max(0.0, due - monotonic())
        ready, _, _ = select.select(waited, [], [], timeout)
        if waited[0] in ready and duplicator is not None:
            for _ in range(_AT_ONCE):
                if (whole := sockets.read_whole()) is None:
                    break
                lines[whole[0]].arrive(whole[1], monotonic(), whole[2])
        elif waited[0] in ready:
            for _ in range(_AT_ONCE):
                if (found := read()) is None:
                    break
                lines[found[0]].arrive(found[1], monotonic())
        now = monotonic()
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
                _obey(json.loads(message), lines, control)


def _obey(message: object, lines: dict[int, Line], control: socket.socket) -> None:
    if isinstance(message, list):
        for queue, impairment in message:
            lines[queue].change(Impairment(**impairment))
    lost = {queue: line.lost for queue, line in lines.items()}
    control.sendall(json.dumps({"lost": lost}).encode() + b"\n")
