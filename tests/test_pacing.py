"""Time buckets add up, and the paced clock gives every step the same compute time.

On a clock of the test's own, where nothing takes time but what sleeps: on a real one a busy host would decide.
"""

import time

import pytest

from harness.worker import pacing
from harness.worker.pacing import StepPacer, Stopwatch
from netsim.traffic import Transfer


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pacing, "time", made)
    return made


def test_a_lap_returns_what_was_spent_and_starts_again(clock: Clock) -> None:
    watch = Stopwatch()
    with watch.bucket("compute"):
        clock.sleep(0.02)
    watch.move(0.005, "compute", "communication")
    lap = watch.lap()
    assert lap["communication"] == pytest.approx(0.005)
    assert lap["compute"] == pytest.approx(0.015)
    assert not any(watch.lap().values())


def test_paced_steps_last_their_slot(clock: Clock) -> None:
    """Steps of a paced clock last their slot whatever the computation took."""
    slots = StepPacer(0.05, 2 / 3)
    begin = clock.now
    for busy in (0.01, 0.03, 0.0, 0.02):
        slots.begin()
        clock.sleep(busy)
        slots.wait()
    assert clock.now - begin == pytest.approx(0.2)
    assert slots.overruns == 0


def test_a_slot_is_waited_for_in_real_time() -> None:
    slots = StepPacer(0.05, 2 / 3)
    slots.begin()
    begin = time.monotonic()
    slots.wait()
    assert slots.overruns or time.monotonic() - begin > 0.04


def test_work_after_the_slot_is_taken_from_the_next_one(clock: Clock) -> None:
    slots = StepPacer(0.05, 2 / 3)
    begin = clock.now
    for _ in range(4):
        slots.begin()
        slots.wait()
        clock.sleep(0.02)
        slots.carry_over(0.02)
    assert clock.now - begin == pytest.approx(4 * 0.05 + 0.02)


def test_a_computation_longer_than_its_slot_is_counted(clock: Clock) -> None:
    slots = StepPacer(0.01, 2 / 3)
    slots.begin()
    clock.sleep(0.02)
    slots.wait()
    assert slots.overruns == 1
    assert clock.now == 1000.02


def test_buckets_are_ready_along_the_paced_backward_pass(clock: Clock) -> None:
    """A bucket is ready at its share of the paced backward pass."""
    slots = StepPacer(0.3, 2 / 3)
    slots.begin()
    half = Transfer("gradient/0", 1, (0, 1), ready=0.5)
    assert slots.ready_at(half) - clock.now == pytest.approx(0.2)


def test_native_compute_waits_for_nothing(clock: Clock) -> None:
    slots = StepPacer(None, 2 / 3)
    slots.begin()
    slots.wait()
    assert clock.now == 1000.0
    assert slots.ready_at(Transfer("x", 1, (0, 1), ready=0.5)) == 0.0
