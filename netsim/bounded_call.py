"""Calls that may block for ever, with a bound.

torch's TCPStore client waits without a limit for a server that is stopped (SIGSTOP) but whose connection stands.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class BoundedCaller:
    """Runs one call after the other in a thread of its own, and stops waiting for a call after `seconds`."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._stuck = False
        # A daemon: a call that never returns must not keep the process.
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def run(self, call: Callable[[], T], extra: float = 0.0) -> T:
        """The result of `call`, which may itself wait for `extra` seconds.

        Raises TimeoutError when there is none in time, and at once from then on; else what `call` raises.
        """
        if self._stuck:
            raise TimeoutError(f"{self._name} does not answer")
        answer: Future[T] = Future()
        self._calls.put((call, answer))
        try:
            return answer.result(self._seconds + extra)
        except TimeoutError:
            self._stuck = not answer.done()
            raise TimeoutError(f"{self._name} did not answer within {self._seconds:g} s") from None

    def _serve(self) -> None:
        while True:
            call, answer = self._calls.get()
            try:
                answer.set_result(call())
            except BaseException as error:  # handed to whoever waits for it
                answer.set_exception(error)
