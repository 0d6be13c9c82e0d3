"""What payload costs on the wire."""

import pytest

from netsim import framing


def test_of_a_full_frame_1448_of_1514_bytes_are_payload() -> None:
    assert framing.goodput(100e6, 1500) == pytest.approx(100e6 * 1448 / 1514)
    assert framing.goodput(100e6, 9000) == pytest.approx(100e6 * 8948 / 9014)


def test_every_started_segment_costs_a_frame() -> None:
    assert framing.frames(0, 1500) == 0
    assert framing.frames(1448, 1500) == 1
    assert framing.frames(1449, 1500) == 2
    assert framing.wire_bytes(1449, 1500) == 1449 + 2 * 66


def test_a_bucket_holds_one_tick_and_at_least_two_frames() -> None:
    """A bucket holds what flows in a tick and at least two frames."""
    assert framing.burst(1e9, 1500, hz=250) == 500_000
    assert framing.burst(1e6, 1500, hz=250) == 2 * 1514


def test_a_default_queue_holds_the_bandwidth_delay_product() -> None:
    """A queue holds the bandwidth delay product and at least a hundred frames."""
    assert framing.queue_limit(100e6, 0.1, 1500) == 1_250_000
    assert framing.queue_limit(1e6, 0.1, 1500) == 151_400
    assert framing.queue_limit(1e9, 0.0, 1500) == 625_000
