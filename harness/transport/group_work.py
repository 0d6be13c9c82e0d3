"""Handles of torch.distributed for transfers under way: they are finished in order, in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from harness.transport.wan_exchange import WanHandle
from netsim.errors import PeerError

CLOSE_SECONDS = 10.0


class Completions:
    """Finishes works in a thread of its own: what follows a transfer, callbacks too, must not hold up the reactor."""

    def __init__(self) -> None:
        self._ready: queue.SimpleQueue[GroupWork | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="longhaul-completions")
        self._thread.start()

    def add(self, work: GroupWork) -> None:
        self._ready.put(work)

    def close(self) -> None:
        """Finishes what has been added, and waits for that: the interpreter must not end in the middle of it."""
        self._ready.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (work := self._ready.get()) is not None:
            work.complete()


class GroupWork(dist.Work):
    """One collective under way.

    result: the tensors that it changes. finish: brings what has arrived into them; runs once, when all is there.
    Raises DistBackendError, which names the peer, where torch's own backends do.
    """

    def __init__(self, completions: Completions, result: Sequence[Tensor], finish: Callable[[], None]) -> None:
        super().__init__()
        self._completions, self._result, self._finish = completions, list(result), finish
        self._handles: list[WanHandle] = []
        self._left = 1  # of transfers, and one until all have been started
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: dist.DistBackendError | None = None
        self._settled: torch.futures.Future[object] = torch.futures.Future()
        self._future = self._settled.then(self._outcome)

    def expect(self) -> None:
        """One more transfer will be started for this work."""
        with self._lock:
            self._left += 1

    def watch(self, handle: WanHandle) -> None:
        self._handles.append(handle)

    def arrived(self) -> None:
        """One transfer has ended, well or not; called from the reactor, and once when all have been started."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._completions.add(self)

    def complete(self) -> None:
        try:
            for handle in self._handles:
                handle.wait()
            with torch.no_grad():
                self._finish()
        except Exception as error:
            self._error = dist.DistBackendError(f"longhaul: {error}")
        self._done.set()
        self._settled.set_result(None)

    def _outcome(self, _: object) -> list[Tensor]:
        if self._error is not None:
            raise self._error
        return self._result

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Blocks until the result is there. A timeout above zero that passes first raises DistBackendError."""
        if not self._done.wait(timeout.total_seconds() or None):
            raise dist.DistBackendError(f"longhaul: not done within {timeout.total_seconds():g} s")
        if self._error is not None:
            raise self._error
        return True

    def get_future(self) -> torch.futures.Future[object]:
        return self._future  # type: ignore[return-value]  # of the list of tensors

    def is_completed(self) -> bool:
        return self._done.is_set()

    def is_success(self) -> bool:
        return self._done.is_set() and self._error is None

    def exception(self) -> Exception | None:
        return self._error

    def result(self) -> list[Tensor]:
        return self._result


def failed(error: PeerError) -> dist.DistBackendError:
    """An error of ours as torch's users expect it."""
    return dist.DistBackendError(f"longhaul: {error}")
