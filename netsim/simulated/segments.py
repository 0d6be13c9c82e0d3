"""One segment of a run in SimPy: from a moment when nothing is under way to the next such moment.

Workers are processes. A step's transfers of one phase run together, those of the next phase follow; a worker begins
the next step when the transfers that it must wait for are done; `Transfer.overlap` lets it run ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import simpy

from netsim.errors import LinkError
from netsim.simulated.compute import Compute, Schedule
from netsim.simulated.fabric import ActiveTransfer, Fabric
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_resources import Links
from netsim.traffic import Algorithm, Transfer


@dataclass(frozen=True)
class Segment:
    """Steps first .. last; at these offsets from `first` something happens.

    transfers: (offset, transfers released by that step).  evaluations: offsets of steps that end with an evaluation.
    """

    steps: int
    transfers: tuple[tuple[int, tuple[Transfer, ...]], ...]
    evaluations: tuple[int, ...] = ()


@dataclass
class SegmentProgress:
    """What a segment changed, by rank: clocks in seconds since the segment's origin, seconds, bytes.

    left: seconds since the origin when the last byte of each pair of ranks has left; empty where nobody goes on before.
    """

    clocks: Floats
    computing: Floats
    waiting: Floats
    evaluating: Floats
    payload: Floats
    left: Floats = field(default_factory=lambda: np.zeros(0))
    log: list[tuple[float, str]] = field(default_factory=list)


def idle(ranks: int) -> SegmentProgress:
    """Nothing done yet."""
    clocks, computing, waiting, evaluating, payload = np.zeros((5, ranks))
    return SegmentProgress(clocks, computing, waiting, evaluating, payload)


def mean_progress(drawn: Sequence[SegmentProgress]) -> SegmentProgress:
    """The mean of one segment drawn several times; without a log."""
    names = ("clocks", "computing", "waiting", "evaluating", "payload", "left")
    return SegmentProgress(*(np.mean([getattr(progress, name) for progress in drawn], axis=0) for name in names))


Change = tuple[float, Callable[[Fabric], None]]  # seconds since the origin, and what changes then


@dataclass(frozen=True)
class Setting:
    """What stays the same in a run. choose: the algorithm of an all-reduce."""

    links: Links
    compute: Compute
    choose: Callable[[Transfer], Algorithm]
    evaluation_seconds: float = 0.0


class _SegmentRun:
    def __init__(
        self,
        setting: Setting,
        segment: Segment,
        clocks: Floats,
        random: np.random.Generator,
        schedule: Schedule,
        origin: float,
        backlog: Floats | None,
        logging: bool,
    ) -> None:
        self.setting, self.segment, self.random = setting, segment, random
        self.schedule, self.origin, self.logging = schedule, origin, logging
        ranks = len(clocks)
        self.env = simpy.Environment()
        self.progress = idle(ranks)
        self.progress.clocks = clocks.copy()
        self.fabric = Fabric(self.env, setting.links, self.progress.payload, backlog)
        self.active: dict[tuple[int, int], ActiveTransfer] = {}
        self.barriers: dict[int, tuple[simpy.Event, list[int]]] = {}
        self.left = ranks

    def note(self, text: str) -> None:
        if self.logging:
            self.progress.log.append((self.env.now, text))

    def run(self, changes: Iterable[Change]) -> SegmentProgress:
        for when, change in changes:
            self.env.process(self._change(when, change))
        for rank in range(len(self.progress.clocks)):
            self.env.process(self._worker(rank))
        self.env.run()
        if self.left:
            raise LinkError(f"{self.left} workers wait for ever: a link that they need is cut and never restored")
        self.progress.left = self.fabric.left
        return self.progress

    def _change(self, when: float, change: Callable[[Fabric], None]) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(when)
        if self.left:
            change(self.fabric)

    def _compute(self, rank: int, steps: int) -> float:
        """Seconds until `steps` steps that begin now are done."""
        work = self.setting.compute.draw(rank, steps, self.random)
        if not self.schedule:
            return work
        now = self.origin + self.env.now
        return self.schedule.finish(rank, now, work) - now

    def _worker(self, rank: int) -> Generator[simpy.Event, Any, None]:
        env, progress = self.env, self.progress
        yield env.timeout(float(progress.clocks[rank]))
        deadlines: dict[int, list[simpy.Event]] = {}
        released = dict(self.segment.transfers)
        offset = 0
        while offset < self.segment.steps:
            stops = [o for o in (*released, *self.segment.evaluations, *deadlines) if o >= offset]
            stop = min(stops, default=self.segment.steps)
            if stop > offset:
                seconds = self._compute(rank, stop - offset)
                progress.computing[rank] += seconds
                yield env.timeout(seconds)
                offset = stop
                continue
            began, seconds = env.now, self._compute(rank, 1)
            progress.computing[rank] += seconds
            needed = deadlines.pop(offset, [])
            mine = [(i, t) for i, t in enumerate(released.get(offset, ())) if rank in t.members]
            for overlap, group in groupby(sorted(mine, key=lambda it: it[1].overlap), key=lambda it: it[1].overlap):
                chain = env.process(self._synchronise(rank, offset, list(group), began, seconds))
                last = min(offset + overlap, self.segment.steps - 1)
                (needed if last == offset else deadlines.setdefault(last, [])).append(chain)
            yield env.timeout(seconds)
            computed = env.now
            if needed:
                yield env.all_of(needed)
            progress.waiting[rank] += env.now - computed
            if offset in self.segment.evaluations:
                yield from self._evaluate(rank, offset)
            offset += 1
        progress.clocks[rank] = env.now
        self.left -= 1

    def _synchronise(
        self, rank: int, offset: int, transfers: list[tuple[int, Transfer]], began: float, seconds: float
    ) -> Generator[simpy.Event, Any, None]:
        """The worker's part in a step's transfers, phase after phase."""
        env, link_model = self.env, self.setting.links.link_model
        backward = self.setting.compute.backward_share
        transfers.sort(key=lambda it: (it[1].phase, it[1].ready))
        for _, phase in groupby(transfers, key=lambda it: it[1].phase):
            done, local = [], 0.0
            for index, transfer in phase:
                release = began + seconds * (1 - backward + backward * transfer.ready)
                if release > env.now:
                    yield env.timeout(release - env.now)
                active = self._active(offset, index, transfer)
                self.note(f"{rank} ready for {transfer.name}")
                active.ready(rank)
                done.append(active.done[rank])
                local += link_model.transfer_seconds + link_model.byte_seconds * transfer.size
            yield env.all_of(done)
            self.note(f"{rank} has {', '.join(transfer.name for _, transfer in transfers)}")
            if local:
                yield env.timeout(local)

    def _active(self, offset: int, index: int, transfer: Transfer) -> ActiveTransfer:
        key = (offset, index)
        if key not in self.active:
            self.active[key] = self.fabric.carry(transfer, self.setting.choose(transfer))
        return self.active[key]

    def _evaluate(self, rank: int, offset: int) -> Generator[simpy.Event, Any, None]:
        """All workers evaluate and then agree on the loss: the slowest is waited for."""
        event, arrived = self.barriers.setdefault(offset, (self.env.event(), []))
        began = self.env.now
        yield self.env.timeout(self.setting.evaluation_seconds)
        arrived.append(rank)
        if len(arrived) == len(self.progress.clocks):
            event.succeed()
        yield event
        self.progress.evaluating[rank] += self.env.now - began


def simulate_segment(
    setting: Setting,
    segment: Segment,
    clocks: Floats,
    random: np.random.Generator,
    schedule: Schedule | None = None,
    origin: float = 0.0,
    changes: Iterable[Change] = (),
    backlog: Floats | None = None,
    logging: bool = False,
) -> SegmentProgress:
    """Run `segment` from the workers' `clocks` (seconds since `origin`, itself in seconds since the run began).

    backlog: when what was sent before will have left, as in `SegmentProgress.left`.
    """
    run = _SegmentRun(setting, segment, clocks, random, schedule or Schedule(), origin, backlog, logging)
    return run.run(changes)
