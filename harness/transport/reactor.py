"""The one thread of a worker that touches its WAN sockets.

It waits for the kernel, moves bytes, runs what other threads submit, and keeps time. Everything that it calls runs in
its thread, so nothing behind it needs a lock. An error in one stream is reported to that stream's owner; an error of
our own ends the thread and is reported through `on_end`, so that nobody waits for a thread that is gone.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from harness.transport.stream import Stream
from netsim.errors import PeerError


@dataclass(eq=False)
class _Watched:
    stream: Stream
    on_error: Callable[[PeerError], None]
    on_end: Callable[[], None]
    reading: bool = True
    events: int = 0


class Reactor:
    """An event loop over streams. `submit` may be called from any thread; everything else from the loop's own."""

    def __init__(self, name: str, on_end: Callable[[BaseException | None], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._submitted: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._watched: dict[Stream, _Watched] = {}
        self._on_end = on_end
        self._running = True
        self._closing = threading.Lock()  # the wake-up's descriptor may not be written to once it is closed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in the loop, soon."""
        self._submitted.append(work)
        with self._closing:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def stop(self) -> None:
        self._running = False

    def at(self, when: float, work: Callable[[], None]) -> None:
        """Run `work` once the monotonic clock shows `when`."""
        heapq.heappush(self._timers, (when, next(self._order), work))

    def watch(self, stream: Stream, on_error: Callable[[PeerError], None], on_end: Callable[[], None]) -> None:
        """Read what arrives on `stream`. `on_error` hears why it cannot go on, `on_end` that the peer closed it."""
        self._watched[stream] = watched = _Watched(stream, on_error, on_end)
        self._update(watched)

    def listen(self, listener: socket.socket, on_call: Callable[[], None]) -> None:
        self._selector.register(listener, selectors.EVENT_READ, on_call)

    def forget(self, stream: Stream) -> None:
        if (watched := self._watched.pop(stream, None)) is not None and watched.events:
            self._selector.unregister(stream.sock)

    def send(self, stream: Stream) -> None:
        """The stream has something to send."""
        if (watched := self._watched.get(stream)) is not None and not stream.writing:
            self._do(watched, stream.send)

    def pause(self, stream: Stream, paused: bool) -> None:
        """Leave what arrives to the kernel, whose window then closes; or read again."""
        if (watched := self._watched.get(stream)) is not None:
            watched.reading = not paused
            self._update(watched)

    def _update(self, watched: _Watched) -> None:
        stream = watched.stream
        reading = watched.reading and not stream.ended
        events = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if stream.writing else 0)
        if events == watched.events:
            return
        if not events:
            self._selector.unregister(stream.sock)
        elif watched.events:
            self._selector.modify(stream.sock, events, watched)
        else:
            self._selector.register(stream.sock, events, watched)
        watched.events = events

    def _do(self, watched: _Watched, work: Callable[[], None]) -> None:
        """One turn of a stream, whose failure concerns its owner only."""
        had_ended = watched.stream.ended
        try:
            work()
        except (OSError, PeerError) as error:
            self.forget(watched.stream)
            watched.on_error(_complaint(error))
            return
        if watched.stream in self._watched:
            self._update(watched)
            if watched.stream.ended and not had_ended:
                watched.on_end()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with torch.no_grad():
                while self._running:
                    self._turn()
        except BaseException as error:  # whoever waits for this thread must hear of it
            failure = error
        finally:
            self._selector.close()
            with self._closing:
                os.close(self._wake)
                self._wake = -1
            self._on_end(failure)

    def _turn(self) -> None:
        wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, events in self._selector.select(wait):
            if key.fd == self._wake:
                os.eventfd_read(self._wake)
            elif isinstance(key.data, _Watched):
                if events & selectors.EVENT_READ:
                    self._do(key.data, key.data.stream.receive)
                if events & selectors.EVENT_WRITE and key.data.stream in self._watched:
                    self._do(key.data, key.data.stream.send)
            else:
                key.data()
        while self._submitted:
            self._submitted.popleft()()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()


def _complaint(error: OSError | PeerError) -> PeerError:
    """What there is to say about the peer of a stream that cannot go on."""
    if isinstance(error, PeerError):
        return error
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return PeerError("broke the connection", hung_up=True)
    return PeerError("acknowledges nothing any more" if isinstance(error, TimeoutError) else str(error))
