"""Rounds with jitter, many at once: computation drawn for each, synchronisations from a sample of simulated ones.

Where a round ends with a synchronisation of everyone, nobody has its result before the last worker is ready, and how
long that takes from there hardly depends on who was ready when. So a round's end is the latest readiness, drawn as it
is, and a delay after it, by worker, of a round that was simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from netsim.simulated.compute import Compute
from netsim.simulated.fair_rates import Floats
from netsim.simulated.segments import Segment, SegmentProgress, idle
from netsim.traffic import Collective

SIMULATED = 8  # rounds of a kind, before others are drawn


def after_everyone(segment: Segment, ranks: int) -> bool:
    """Whether all that the segment moves is an all-reduce of all workers, after its last step."""
    return (
        not segment.evaluations
        and all(
            offset == segment.steps - 1
            and len(transfer.members) == ranks
            and transfer.collective is Collective.ALL_REDUCE
            and transfer.ready == 1
            and not transfer.overlap
            for offset, transfers in segment.transfers
            for transfer in transfers
        )
        and bool(segment.transfers)
    )


@dataclass
class Samples:
    """delays: (ranks,) seconds from the latest readiness to each worker's end, of every simulated round."""

    delays: list[Floats] = field(default_factory=list)
    payload: Floats | None = None
    state: object = None

    @property
    def enough(self) -> bool:
        return len(self.delays) >= SIMULATED

    def add(self, clocks: Floats, progress: SegmentProgress, state: object) -> None:
        """A round that was simulated from `clocks`; one that changed the links (a window that grew) starts anew."""
        if state != self.state:
            self.delays.clear()
        self.state, self.payload = state, progress.payload
        self.delays.append(progress.clocks - float((clocks + progress.computing).max()))

    def many(
        self, compute: Compute, steps: int, rounds: int, clocks: Floats, random: np.random.Generator
    ) -> SegmentProgress:
        """`rounds` rounds of `steps` steps each, begun at `clocks`."""
        ranks = len(clocks)
        work = np.stack([compute.draws(rank, steps, rounds, random) for rank in range(ranks)], axis=1)
        delays = np.stack(self.delays)[random.integers(len(self.delays), size=rounds)]
        begun = np.concatenate([clocks[None], delays[:-1]])  # relative to the latest readiness before
        latest = np.cumsum((begun + work).max(axis=1))
        ends = latest[:, None] + delays
        progress = idle(ranks)
        progress.clocks = ends[-1]
        progress.computing = work.sum(axis=0)
        progress.waiting = progress.clocks - clocks - progress.computing
        assert self.payload is not None
        progress.payload = rounds * self.payload
        return progress
