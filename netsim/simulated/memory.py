"""What is remembered of segments, so that equal ones are simulated once: exactly, as a sample, or as they settle.

One kind for each nature of a run: nothing is drawn (`KnownSegments`), computation has jitter (`SampledRounds`), or
connections lose packets (`SettledSegments`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from netsim.simulated.cold_windows import ColdWindows
from netsim.simulated.compute import Compute
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_resources import Links
from netsim.simulated.sampled_rounds import Samples, after_everyone
from netsim.simulated.segments import Segment, SegmentProgress, mean_progress

_DIGITS = 9  # clocks that agree to the nanosecond are equal
# Segments of a kind, until windows of connections that lose packets are what they will stay like (at 1 %, slow start
# leaves them seven times as large, and a dozen segments do not suffice), and of these the last, which others are like.
_SETTLED, _ALIKE = 24, 8


@dataclass(frozen=True)
class Beginning:
    """What a segment begins from.

    repeats: how often it comes in a row.  clocks: (ranks,) seconds from `now`, the segment's origin on the run's clock.
    backlog: see `SegmentProgress.left`.  due: when links or workers change next, on that clock.  state: of the links.
    """

    segment: Segment
    repeats: int
    clocks: Floats
    backlog: Floats
    now: float
    due: float
    state: object

    @cached_property
    def key(self) -> object:
        """Equal where all that a segment begins from is, but for when."""
        backlog = np.round(self.backlog, _DIGITS) + 0.0  # no negative zeros
        return self.segment, tuple(np.round(self.clocks, _DIGITS).tolist()), backlog.tobytes(), self.state


@dataclass(frozen=True)
class Passed:
    """`progress` of a segment, `times` in a row; one that stands for several rounds has the steps of them all."""

    segment: Segment
    progress: SegmentProgress
    times: int = 1
    rounds: int = 1


class Memory(Protocol):
    def recall(self, begun: Beginning) -> Passed | None:
        """What becomes of a segment, if enough is known of its kind; the links are then as they would be after it."""

    def learn(self, begun: Beginning, progress: SegmentProgress) -> None:
        """What has become of one that was simulated; the links are as it left them."""


@dataclass
class KnownSegments:
    """Where nothing is drawn: what began alike ends alike."""

    links: Links
    known: dict[object, tuple[SegmentProgress, object, ColdWindows]] = field(default_factory=dict)

    def recall(self, begun: Beginning) -> Passed | None:
        found = self.known.get(begun.key)
        if found is None:
            return None
        progress, after, windows = found
        moved, span = float(progress.clocks.min()), float(progress.clocks.max())
        if begun.now + span > begun.due:
            return None
        stable = (
            after == begun.state
            and _equal(progress.clocks - moved, begun.clocks)
            and _equal(np.maximum(progress.left - moved, 0), begun.backlog)
        )
        times = begun.repeats if stable else 1
        if times > 1 and np.isfinite(begun.due):
            times = min(times, int((begun.due - begun.now - span) // moved) + 1)
        self.links.windows = windows.copy()
        return Passed(begun.segment, progress, times)

    def learn(self, begun: Beginning, progress: SegmentProgress) -> None:
        if begun.now + float(progress.clocks.max()) <= begun.due:
            self.known[begun.key] = progress, self.links.state(), self.links.windows.copy()


@dataclass
class SampledRounds:
    """With jitter: rounds that end with a synchronisation of everyone are drawn from a sample of them."""

    links: Links
    compute: Compute
    random: np.random.Generator
    samples: dict[Segment, Samples] = field(default_factory=dict)

    def recall(self, begun: Beginning) -> Passed | None:
        segment, repeats = begun.segment, begun.repeats
        if repeats == 1 or begun.due < np.inf or not after_everyone(segment, len(begun.clocks)):
            return None
        samples = self.samples.setdefault(segment, Samples())
        if not samples.enough or begun.state != samples.state:
            return None
        progress = samples.many(self.compute, segment.steps, repeats, begun.clocks, self.random)
        return Passed(replace(segment, steps=repeats * segment.steps), progress, rounds=repeats)

    def learn(self, begun: Beginning, progress: SegmentProgress) -> None:
        if begun.segment in self.samples:
            self.samples[begun.segment].add(begun.clocks, progress, self.links.state())


@dataclass
class SettledSegments:
    """Where packets are lost: every segment differs, and in the end they are as long as the last few were."""

    drawn: dict[object, list[tuple[Floats, SegmentProgress]]] = field(default_factory=dict)

    def recall(self, begun: Beginning) -> Passed | None:
        drawn = self.drawn.get((begun.segment, begun.state), [])
        if len(drawn) < _SETTLED:
            return None
        recent = drawn[-_ALIKE:]
        last, alike = recent[-1][1], mean_progress([progress for _, progress in recent])
        seconds = float(np.mean([progress.clocks - clocks for clocks, progress in recent]))
        times = begun.repeats
        if begun.due < np.inf:
            times = min(times, int((begun.due - begun.now - float(begun.clocks.max())) // seconds))
        if times < 1:
            return None
        left = last.left - float(last.clocks.min()) + seconds
        return Passed(begun.segment, replace(alike, clocks=begun.clocks + seconds, left=left), times)

    def learn(self, begun: Beginning, progress: SegmentProgress) -> None:
        self.drawn.setdefault((begun.segment, begun.state), []).append((begun.clocks, progress))


def _equal(these: Floats, those: Floats) -> bool:
    return np.array_equal(np.round(these, _DIGITS), np.round(those, _DIGITS))
