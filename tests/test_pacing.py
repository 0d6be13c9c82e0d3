"""Time buckets add up, and the paced clock gives every step the same compute time."""

import time

import pytest

from harness.worker.pacing import StepPacer, Stopwatch
from netsim.traffic import Transfer


def test_a_lap_returns_what_was_spent_and_starts_again() -> None:
    watch = Stopwatch()
    with watch.bucket("compute"):
        time.sleep(0.02)
    watch.move(0.005, "compute", "communication")
    lap = watch.lap()
    assert lap["communication"] == pytest.approx(0.005)
    assert 0.015 <= lap["compute"] < 0.1
    assert not any(watch.lap().values())


def test_paced_steps_last_their_slot() -> None:
    """Steps of a paced clock last their slot whatever the computation took."""
    slots = StepPacer(0.05, 2 / 3)
    begin = time.monotonic()
    for busy in (0.01, 0.03, 0.0, 0.02):
        slots.begin()
        time.sleep(busy)
        slots.wait()
    assert time.monotonic() - begin == pytest.approx(0.2, abs=0.02)
    assert slots.overruns == 0


def test_work_after_the_slot_is_taken_from_the_next_one() -> None:
    slots = StepPacer(0.05, 2 / 3)
    begin = time.monotonic()
    for _ in range(4):
        slots.begin()
        slots.wait()
        time.sleep(0.02)
        slots.carry_over(0.02)
    assert time.monotonic() - begin == pytest.approx(4 * 0.05 + 0.02, abs=0.02)


def test_a_computation_longer_than_its_slot_is_counted() -> None:
    slots = StepPacer(0.01, 2 / 3)
    slots.begin()
    time.sleep(0.02)
    slots.wait()
    assert slots.overruns == 1


def test_buckets_are_ready_along_the_paced_backward_pass() -> None:
    """A bucket is ready at its share of the paced backward pass."""
    slots = StepPacer(0.3, 2 / 3)
    slots.begin()
    begin = time.monotonic()
    half = Transfer("gradient/0", 1, (0, 1), ready=0.5)
    assert slots.ready_at(half) - begin == pytest.approx(0.2, abs=0.01)


def test_native_compute_waits_for_nothing() -> None:
    slots = StepPacer(None, 2 / 3)
    slots.begin()
    begin = time.monotonic()
    slots.wait()
    assert time.monotonic() - begin < 0.01
    assert slots.ready_at(Transfer("x", 1, (0, 1), ready=0.5)) == 0.0
