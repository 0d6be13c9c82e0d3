"""A whole run, simulated: segment after segment, and many at once where nothing changes.

Between two moments at which nothing is under way, a segment of the run follows from the workers' clocks, the state of
the links and the plan. Equal segments from equal states have equal outcomes, so each kind is simulated once and
repeated by arithmetic: a run's cost grows with the kinds of its rounds, not with their number (`memory`). With jitter
every round differs; where a round ends with a synchronisation of everyone, the rest are drawn from a sample. Where
packets are lost, the whole run is drawn several times, and a segment that comes again and again is in the end as long
as the last few of its kind were. (The mean of each segment over draws, as a beginning of the next, would have members
end at the same time, who in any one draw wait for the latest: 12 % of a synchronisation at 1 %.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import fmean, stdev

import numpy as np

from netsim import collectives
from netsim.simulated import timeline_effects
from netsim.simulated.compute import Compute, Schedule, Slowdown
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_model import LinkModel
from netsim.simulated.link_resources import Links, site_of_rank
from netsim.simulated.memory import Beginning, KnownSegments, Memory, Passed, SampledRounds, SettledSegments
from netsim.simulated.segments import (
    Change,
    Segment,
    SegmentProgress,
    Setting,
    idle,
    simulate_segment,
)
from netsim.topology import Topology
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

# Transfers that overlap without end are simulated so many periods, and steps, at a time: to wait for all of them after
# every two periods cost up to 5 %.
_UNBROKEN, _LEAST_UNBROKEN = 8, 200


@dataclass(frozen=True)
class Evaluation:
    """After every `every` steps and after the last, all workers evaluate for `seconds` and wait for each other."""

    every: int
    seconds: float


@dataclass(frozen=True)
class Round:
    """Steps of the run that passed alike `times` in a row; seconds since the run began."""

    first_step: int
    steps: int
    times: int
    start: float
    end: float


@dataclass(frozen=True)
class SimulatedRun:
    """Seconds and bytes by rank, where packets are lost the means of several draws. wall_seconds: until the slowest
    worker is done.  rounds: of the first draw.  communication_spread: standard deviation between draws, of the mean
    of all ranks."""

    wall_seconds: float
    compute_seconds: tuple[float, ...]
    communication_seconds: tuple[float, ...]  # exposed: what steps waited for
    evaluation_seconds: tuple[float, ...]
    payload_bytes: tuple[float, ...]
    rounds: tuple[Round, ...]
    simulated_rounds: int
    communication_spread: float = 0.0

    @property
    def compute_utilisation(self) -> float:
        """Mean compute time over wall time."""
        return float(np.mean(self.compute_seconds)) / self.wall_seconds


def simulate(
    plan: Plan,
    topology: Topology,
    compute: Compute,
    *,
    link_model: LinkModel = LinkModel(),  # noqa: B008 - frozen
    choose: Callable[[Transfer], Algorithm] | None = None,
    evaluation: Evaluation | None = None,
    slowdowns: Sequence[Slowdown] = (),
    seed: int = 0,
) -> SimulatedRun:
    """The run that `plan` describes, on `topology` with its timeline.

    choose: the algorithm for an all-reduce that leaves it open; by default the one of the least alpha-beta time.
    slowdowns: of workers, besides those of the timeline.  seed: of the jitter.
    Raises LinkError if the timeline cuts something off for good that the plan needs.
    """
    assert plan.sites == len(site_of_rank(topology)), "a plan for as many ranks as the topology has sites"
    assert len(compute.step_seconds) == plan.sites
    eventful, changes = bool(topology.timeline), list[Change]()
    if eventful:
        start, traffic = timeline_effects.start_of(topology)
        changes = timeline_effects.changes_of(topology)
        slowdowns = [*slowdowns, *timeline_effects.slowdowns_of(topology)]
    if choose is None:
        choose = partial(collectives.choose, topology)
    resolve = lru_cache(maxsize=None)(partial(_resolved, choose))  # every step has the same transfers

    def drawn(draw: int) -> tuple[SimulatedRun, Links]:
        links = Links(topology, link_model, capped=eventful, draw=draw)
        if eventful:
            links.become(start, [(one.source, one.target, one.rate) for one in traffic])
        setting = Setting(links, compute, resolve, evaluation.seconds if evaluation else 0.0)
        return _Run(plan, setting, evaluation, Schedule(slowdowns), changes, seed).outcome(), links

    outcome, links = drawn(0)
    if links.connections is None or compute.jitter:  # nothing is drawn, or more than windows of connections
        return outcome
    return _mean([outcome, *(drawn(draw)[0] for draw in range(1, links.connections.draws))])


def _mean(outcomes: Sequence[SimulatedRun]) -> SimulatedRun:
    """Of runs that differ in what was drawn; their rounds as in the first."""

    def by_rank(name: str) -> tuple[float, ...]:
        return tuple(np.mean([getattr(one, name) for one in outcomes], axis=0).tolist())

    waited = [fmean(one.communication_seconds) for one in outcomes]
    return replace(
        outcomes[0],
        wall_seconds=fmean(one.wall_seconds for one in outcomes),
        compute_seconds=by_rank("compute_seconds"),
        communication_seconds=by_rank("communication_seconds"),
        evaluation_seconds=by_rank("evaluation_seconds"),
        communication_spread=stdev(waited) if len(waited) > 1 else 0.0,
    )


def _resolved(choose: Callable[[Transfer], Algorithm], transfer: Transfer) -> Algorithm:
    return choose(transfer) if transfer.algorithm is Algorithm.AUTO else transfer.algorithm


class _Run:
    def __init__(
        self,
        plan: Plan,
        setting: Setting,
        evaluation: Evaluation | None,
        schedule: Schedule,
        changes: list[Change],
        seed: int,
    ) -> None:
        self.plan, self.setting, self.schedule, self.changes = plan, setting, schedule, changes
        self.random = np.random.default_rng(seed)
        self.evaluations = _evaluations(plan, evaluation)
        ranks = plan.sites
        self.now = 0.0  # the origin of the current segment: the earliest worker's clock
        self.total = idle(ranks)
        self.backlog: Floats = np.zeros(ranks**2 if setting.links.link_model.send_buffers else 0)
        self.rounds: list[Round] = []
        self.known, self.settled = KnownSegments(setting.links), SettledSegments()
        self.sampled = SampledRounds(setting.links, setting.compute, self.random)
        self.simulated = 0

    def outcome(self) -> SimulatedRun:
        step, clocks = 1, np.zeros(self.plan.sites)
        while step <= self.plan.steps:
            segment = self._segment(step)
            repeats = self._repeats(step, segment)
            step, clocks = self._advance(step, segment, repeats, clocks)
        total = self.total
        return SimulatedRun(
            wall_seconds=self.now + float(clocks.max()),
            compute_seconds=tuple(total.computing.tolist()),
            communication_seconds=tuple(total.waiting.tolist()),
            evaluation_seconds=tuple(total.evaluating.tolist()),
            payload_bytes=tuple(total.payload.tolist()),
            rounds=tuple(self.rounds),
            simulated_rounds=self.simulated,
        )

    def _advance(self, step: int, segment: Segment, repeats: int, clocks: Floats) -> tuple[int, Floats]:
        """Pass `segment` once, or as often as it repeats from an unchanged state before anything else changes."""
        due = min(self.changes[0][0] if self.changes else np.inf, self.schedule.next_after(self.now))
        begun = Beginning(segment, repeats, clocks, self.backlog, self.now, due, self.setting.links.state())
        memory = self._memory()
        if (passed := memory.recall(begun)) is not None:
            return self._book(step, passed)
        self.simulated += 1
        progress = self._simulate(segment, clocks)
        memory.learn(begun, progress)
        end = self.now + float(progress.clocks.max())
        self.changes = [change for change in self.changes if change[0] > end]
        return self._book(step, Passed(segment, progress))

    def _memory(self) -> Memory:
        """That of the run's nature; packets may be lost from a moment of the timeline on."""
        if self.setting.compute.jitter:
            return self.sampled
        return self.known if self.setting.links.connections is None else self.settled

    def _simulate(self, segment: Segment, clocks: Floats) -> SegmentProgress:
        progress = simulate_segment(
            self.setting,
            segment,
            clocks,
            self.random,
            self.schedule,
            self.now,
            [(max(0.0, when - self.now), change) for when, change in self.changes],
            self.backlog,
        )
        if (connections := self.setting.links.connections) is not None:
            connections.move(float(progress.clocks.min()))
        return progress

    def _book(self, step: int, passed: Passed) -> tuple[int, Floats]:
        """The next step, and the workers' clocks from its origin."""
        progress, times = passed.progress, passed.times
        moved = float(progress.clocks.min())
        clocks = progress.clocks - moved
        self.backlog = np.maximum(progress.left - moved, 0)
        self.rounds.append(
            Round(
                step,
                passed.segment.steps // passed.rounds,
                times * passed.rounds,
                self.now,
                self.now + (times - 1) * moved + float(progress.clocks.max()),
            )
        )
        self.now += times * moved
        for name in ("computing", "waiting", "evaluating", "payload"):
            setattr(self.total, name, getattr(self.total, name) + times * getattr(progress, name))
        return step + times * passed.segment.steps, clocks

    def _segment(self, first: int) -> Segment:
        """From `first` to the next step after which nothing is under way.

        Where overlapped transfers follow each other without a gap there is no such step; then several of the longest
        periods are taken, and their last transfers are waited for.
        """
        last = self.plan.steps
        longest = max(_LEAST_UNBROKEN, _UNBROKEN * max((mark.every for mark in self.plan.recurrences), default=1))
        found: list[tuple[int, tuple[Transfer, ...]]] = []
        evaluations: list[int] = []
        end, step = first - 1, self._next(first)
        while step is not None and (end < first or (step <= end and step < first + longest)):
            transfers = self.plan.at(step)
            if transfers:
                found.append((step - first, transfers))
            if any(mark.happens_at(step) for mark in self.evaluations):
                evaluations.append(step - first)
            end = max(end, min(last, step + max((t.overlap for t in transfers), default=0)))
            step = self._next(step + 1)
        if step is not None and first <= step <= end:
            end = step - 1  # cut: what is under way ends with the step before the next transfer
        if end < first:  # nothing happens any more
            end = last
        return Segment(end - first + 1, tuple(found), tuple(evaluations))

    def _repeats(self, first: int, segment: Segment) -> int:
        """How often in a row, from `first` on, a segment like this one follows another."""
        end, length = first + segment.steps - 1, segment.steps
        times = (self.plan.steps - end) // length + 1
        for mark in (*self.plan.recurrences, *self.evaluations):
            if mark.happens_at(end):
                times = min(times, (mark.last - end) // length + 1) if mark.every == length else 1
            elif (upcoming := mark.next_from(first)) is not None:
                times = min(times, max(1, (upcoming - 1 - end) // length + 1))
        return max(1, times)

    def _next(self, step: int) -> int | None:
        marks = (*self.plan.recurrences, *self.evaluations)
        return min((found for mark in marks if (found := mark.next_from(step)) is not None), default=None)


def _evaluations(plan: Plan, evaluation: Evaluation | None) -> tuple[Recurrence, ...]:
    """When evaluations come: every so often, and after the last step."""
    if evaluation is None:
        return ()
    steps = plan.steps
    final = () if steps % evaluation.every == 0 else (Recurrence((), 1, first=steps, last=steps),)
    return (Recurrence((), evaluation.every, first=evaluation.every, last=steps), *final)
