"""Time inside the trainer process: buckets that add up to wall time, and the paced clock of the local steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.records.run_record import BUCKETS
from netsim.traffic import Transfer


class Stopwatch:
    """Seconds by bucket since the last `lap`. Time spent waiting inside a bucket can be moved to another one."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(BUCKETS, 0.0)

    @contextmanager
    def bucket(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    def move(self, seconds: float, source: str, target: str) -> None:
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def lap(self) -> dict[str, float]:
        """The buckets so far; starts again from zero."""
        done, self._seconds = self._seconds, dict.fromkeys(BUCKETS, 0.0)
        return done


class StepPacer:
    """The paced clock: slot by slot, each of `length` seconds of local work. None: native, nothing waits.

    Work that a method does on the results of a synchronisation belongs to the same budget: it shortens the next slot,
    so that n steps take n x length plus the exposed communication.
    """

    def __init__(self, length: float | None, backward_share: float) -> None:
        self.length, self.backward_share = length, backward_share
        self.overruns = 0
        self._start = time.monotonic()
        self._debt = 0.0
        self._pace = 1.0
        self._idle = False

    def scale(self, pace: float) -> None:
        """The next slots take `pace` times as long: a straggler."""
        self._pace = pace

    def begin(self, idle: bool = False) -> None:
        """A step begins; an idle one has no slot."""
        self._start = time.monotonic() - self._debt
        self._debt, self._idle = 0.0, idle

    def wait(self) -> None:
        """Sleep until the slot ends; a slot that has ended already is an overrun."""
        if self.length is None or self._idle:
            return
        left = self._start + self.length * self._pace - time.monotonic()
        if left < 0:
            self.overruns += 1
        else:
            time.sleep(left)

    def carry_over(self, seconds: float) -> None:
        """Local work done after the slot: taken from the next one."""
        if self.length is not None:
            self._debt += seconds

    def ready_at(self, transfer: Transfer) -> float:
        """Monotonic time before which `transfer` must not leave: its share of the paced backward pass."""
        if self.length is None or self._idle:
            return 0.0
        forward = 1 - self.backward_share
        return self._start + self.length * self._pace * (forward + self.backward_share * transfer.ready)
