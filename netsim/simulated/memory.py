"""Memory over time at one worker."""

from __future__ import annotations


def round_profile(
    *,
    persistent: float,
    activations: float,
    buffers: float,
    step_seconds: float,
    sync_seconds: float,
    backward_share: float = 2 / 3,
) -> list[tuple[float, float]]:
    """(seconds, bytes) through the last local step of a round and the synchronisation that follows, piecewise linear.

    Activations grow through the forward pass and shrink through the backward pass. Buffers are there while the
    synchronisation lasts; the state that persists is there all the time.
    """
    turn = step_seconds * (1 - backward_share)
    points = [(0.0, persistent), (turn, persistent + activations), (step_seconds, persistent)]
    if sync_seconds > 0:
        end = step_seconds + sync_seconds
        points += [(step_seconds, persistent + buffers), (end, persistent + buffers), (end, persistent)]
    return points
