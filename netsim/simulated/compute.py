"""How long local work takes: per worker, with jitter, and with whatever happens to a machine meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from netsim.simulated.fair_rates import Floats


@dataclass(frozen=True)
class Compute:
    """step_seconds: one local step of each worker, seconds; a straggler is a worker with a longer one.
    backward_share: of a step, at its end; the rest is the forward pass.
    jitter: standard deviation of a step's time over its mean. Steps are gamma distributed, so that the sum over a
    round is drawn at once and exactly.
    """

    step_seconds: tuple[float, ...]
    backward_share: float = 2 / 3
    jitter: float = 0.0

    def draw(self, rank: int, steps: int, random: np.random.Generator) -> float:
        """Seconds that `steps` steps take at `rank`, undisturbed."""
        return float(self.draws(rank, steps, 1, random)[0])

    def draws(self, rank: int, steps: int, times: int, random: np.random.Generator) -> Floats:
        """(times,) seconds, drawn independently."""
        mean = self.step_seconds[rank]
        if not self.jitter or not mean:
            return np.full(times, steps * mean)
        shape = 1 / self.jitter**2
        return random.gamma(steps * shape, mean / shape, size=times)


@dataclass(frozen=True)
class Slowdown:
    """From `start` to `end` (seconds), every step at `rank` takes `factor` times as long; infinite: it stands still.

    loses_work: a crash. What was computed since the last synchronisation is computed again after `end`.
    """

    rank: int
    start: float
    end: float
    factor: float
    loses_work: bool = False


class Schedule:
    """Slowdowns by rank: when work that begins at a time is finished."""

    def __init__(self, slowdowns: Iterable[Slowdown] = ()) -> None:
        self._of: dict[int, list[Slowdown]] = {}
        for slowdown in sorted(slowdowns, key=lambda s: s.start):
            self._of.setdefault(slowdown.rank, []).append(slowdown)

    def __bool__(self) -> bool:
        return bool(self._of)

    def finish(self, rank: int, start: float, work: float, redo: float = 0.0) -> float:
        """When `work` seconds of computation begun at `start` are done; a crash adds the `redo` before it."""
        now, left = start, work
        for slow in self._of.get(rank, ()):
            if slow.end <= now:
                continue
            if now + left <= slow.start:
                break
            left -= max(0.0, slow.start - now)
            if slow.loses_work and slow.start >= now:
                left = work + redo
            begin = max(now, slow.start)
            gained = (slow.end - begin) / slow.factor
            if gained >= left:
                return begin + left * slow.factor
            left -= gained
            now = slow.end
        return now + left

    def next_after(self, now: float) -> float:
        """The next time at which some worker's speed differs from the undisturbed one; inf when never again."""
        times = (max(s.start, now) for slows in self._of.values() for s in slows if s.end > now)
        return min(times, default=float("inf"))
