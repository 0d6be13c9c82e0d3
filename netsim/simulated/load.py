"""A plan, condensed to what its time on a uniform network follows from.

On equal access links and equal delays all workers are alike, so that one link stands for all: the uplink or downlink
with most bytes. On unlike access links it is the one that takes longest, and bytes count as at the network's rate. A
transfer is then a job in one or more hops: so many bytes over that link, a one-way delay, and as many bytes again for
the next hop (a direct all-reduce has two hops, a ring 2 (n-1), a broadcast one).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil, lcm

import numpy as np

from netsim.collectives import Chunking
from netsim.simulated.fair_rates import Floats, Ints
from netsim.simulated.timetable import Timetable
from netsim.traffic import Algorithm, Collective, Plan, Transfer

MOST_JOBS = 128  # of a phase; more buckets are grouped, each group released when its middle is
SINGLE = 8  # at either end of a phase stay as they are


@dataclass(frozen=True)
class QueuedTransfer:
    """ready: share of the backward pass after which it is released.  due: share of the forward pass at which it is
    waited for, 0 before the next step begins.  hop_bytes: over the link in every hop.  piece: of these, what is passed
    on at a time.  tail: (bytes, delays) that follow after the last hop, elsewhere than on the link.
    """

    ready: float
    due: float
    hop_bytes: float
    hops: int
    piece: float
    tail: tuple[float, int] = (0.0, 0)


@dataclass(frozen=True)
class Phase:
    """Jobs that run together, in the order of their release.

    floor: (ready, bytes, delays) that a member needs for a transfer even if the link carries nothing else, one for each
    kind of transfer that does not cross the link.  transfers, size: how many a member takes part in at most, and their
    encoded bytes (for the cost at the host).  buffered: whether they wait for the end of the step, so that they are
    copies and not the gradients themselves.
    """

    jobs: tuple[QueuedTransfer, ...]
    floor: tuple[tuple[float, float, float], ...]
    transfers: int
    size: int
    buffered: bool

    @property
    def together(self) -> QueuedTransfer | None:
        """One job for all, where they are released together and alike; None where they are not, or there is none."""
        if len({(j.ready, j.due, j.hops, j.tail) for j in self.jobs}) != 1:
            return None
        largest = max(job.piece for job in self.jobs)  # what a result that waits for nothing else lags behind
        return replace(self.jobs[-1], hop_bytes=sum(job.hop_bytes for job in self.jobs), piece=largest)


@dataclass(frozen=True)
class Pattern:
    """A chain of phases that a step releases, the steps it may overlap with, and how often it comes in the run."""

    count: int
    overlap: int
    phases: tuple[Phase, ...]

    @property
    def apart(self) -> bool:
        """Whether nothing of it is under way any more when the next step begins."""
        return not self.overlap and not any(job.due for phase in self.phases for job in phase.jobs)


@dataclass(frozen=True, eq=False)
class Calendar:
    """steps: those with a release, ascending.  which: of each, the place in `kinds` of the patterns (by index) that it
    releases; `period` steps later the same ones, from `first` on up to `last` (0: never).
    """

    steps: Ints
    which: Ints
    kinds: tuple[tuple[int, ...], ...]
    period: int
    first: int
    last: int


@dataclass(frozen=True)
class Load:
    """syncs: steps with a transfer.  calendar: where transfers of several steps may be under way together."""

    steps: int
    syncs: int
    patterns: tuple[Pattern, ...]
    calendar: Calendar | None = None


def load_of(plan: Plan, chunking: Chunking = Chunking(), slowness: Floats | None = None) -> Load:  # noqa: B008
    """Condense `plan`. All-reduces that leave their algorithm open go direct, the cheapest on a uniform network.

    slowness: (2, sites), of each site's uplink and downlink, how many times slower than the network's rate it is; bytes
    then count so many times. By default all are alike.
    """
    condense, timetable = _Condenser(plan, chunking, slowness), Timetable.of(plan)
    counts: Counter[int] = Counter()
    for kind, count in timetable.counts():
        for chain in condense.chains(kind):
            counts[chain] += count
    patterns = tuple(replace(pattern, count=counts[index]) for index, pattern in enumerate(condense.patterns))
    calendar = None if all(pattern.apart for pattern in patterns) else _calendar(plan, timetable, condense)
    return Load(plan.steps, len(timetable.steps), patterns, calendar)


class _Condenser:
    """Chains of phases by the recurrences that release them; equal ones are made once."""

    def __init__(self, plan: Plan, chunking: Chunking, slowness: Floats | None) -> None:
        self.plan, self.chunking, self.slowness = plan, chunking, slowness
        self.patterns: list[Pattern] = []
        self._index: dict[Pattern, int] = {}
        self._of_transfers: dict[object, tuple[int, ...]] = {}
        self._of_kind: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._members: dict[tuple[int, ...], int] = {}
        self._member_ids: dict[int, int] = {}

    def chains(self, kind: tuple[int, ...]) -> tuple[int, ...]:
        """Indices of the patterns that a step with these recurrences releases."""
        if kind not in self._of_kind:
            transfers = [t for index in kind for t in self.plan.recurrences[index].transfers]
            key = tuple((*self._key(t), t.ready, t.due, t.overlap, t.phase) for t in transfers)
            if key not in self._of_transfers:
                self._of_transfers[key] = tuple(self._chain(transfers))
            self._of_kind[kind] = self._of_transfers[key]
        return self._of_kind[kind]

    def _key(self, t: Transfer) -> tuple[object, ...]:
        """What its bytes depend on. Tuples of members may be long and shared: each is hashed once."""
        if (place := self._member_ids.get(id(t.members))) is None:
            place = self._members.setdefault(t.members, len(self._members))
            self._member_ids[id(t.members)] = place
        return place, t.elements, t.wire, t.collective, t.algorithm, t.root

    def _chain(self, transfers: Sequence[Transfer]) -> list[int]:
        found: list[int] = []
        for overlap, chain in groupby(sorted(transfers, key=lambda t: t.overlap), key=lambda t: t.overlap):
            ordered = sorted(chain, key=lambda t: (t.phase, t.ready))
            phases = tuple(self._phase(list(phase)) for _, phase in groupby(ordered, key=lambda t: t.phase))
            pattern = Pattern(0, overlap, phases)
            if pattern not in self._index:
                self._index[pattern] = len(self.patterns)
                self.patterns.append(pattern)
            found.append(self._index[pattern])
        return found

    def _phase(self, transfers: list[Transfer]) -> Phase:
        """The jobs of a phase's transfers, which are ordered by `ready`, over the link with most bytes."""
        kinds: dict[object, int] = {}
        which = [kinds.setdefault(self._key(t), len(kinds)) for t in transfers]  # there may be thousands, of few kinds
        examples = dict(zip(which, transfers, strict=True))
        works = [_work(examples[kind], self.plan.sites, self.chunking) for kind in range(len(kinds))]
        if self.slowness is not None:
            works = [work.slowed(self.slowness, examples[kind].members) for kind, work in enumerate(works)]
        counts = Counter(which)
        busy: Floats = np.zeros((2, self.plan.sites))
        for kind, work in enumerate(works):
            busy += counts[kind] * np.stack([work.up, work.down])
        direction, rank = np.unravel_index(int(np.argmax(busy)), busy.shape)
        on_link = [float((work.up, work.down)[direction][rank]) for work in works]
        part = np.zeros((2, self.plan.sites), dtype=np.int64)
        for kind, count in counts.items():
            part[:, list(examples[kind].members)] += np.array([[count], [count * examples[kind].size]])
        elsewhere = {kind for kind, work in enumerate(works) if work.alone and not on_link[kind]}
        jobs = [works[kind].job(t, on_link[kind]) for kind, t in zip(which, transfers, strict=True) if on_link[kind]]
        return Phase(
            jobs=tuple(_grouped(jobs)),
            floor=tuple((examples[kind].ready, works[kind].alone, works[kind].delays) for kind in sorted(elsewhere)),
            transfers=int(part[0].max()),
            size=int(part[1].max()),
            buffered=transfers[0].ready == 1,
        )


@dataclass(frozen=True)
class _Work:
    """Bytes up and down at each rank in all hops; bytes and delays one after the other when the transfer is alone."""

    up: Floats
    down: Floats
    alone: float = 0.0
    delays: float = 0.0
    hops: int = 1
    pieces: int = 1
    through_root: bool = False

    def slowed(self, slowness: Floats, members: Sequence[int]) -> _Work:
        """With bytes in those that the network's rate would carry in the same time; alone, over the slowest member."""
        up, down = self.up * slowness[0], self.down * slowness[1]
        return replace(self, up=up, down=down, alone=self.alone * float(slowness[:, list(members)].max()))

    def job(self, transfer: Transfer, link_bytes: float) -> QueuedTransfer:
        hop = link_bytes / self.hops
        # Through a root, the results leave on another link, a piece behind the contributions.
        tail = (hop / self.pieces, 1) if self.through_root else (0.0, 0)
        return QueuedTransfer(transfer.ready, transfer.due, hop, self.hops, hop / self.pieces, tail)


def _work(transfer: Transfer, sites: int, chunking: Chunking) -> _Work:
    members, n, size = list(transfer.members), len(transfer.members), float(transfer.size)
    up, down = np.zeros(sites), np.zeros(sites)
    if n == 1 or not size:
        return _Work(up, down)
    if not transfer.collective.rooted and transfer.collective is not Collective.ALL_REDUCE:
        each = (n - 1) * size / (n if transfer.collective is Collective.REDUCE_SCATTER else 1)
        up[members] = each
        return _Work(up, up, each, 1.0)
    if transfer.collective is not Collective.ALL_REDUCE:
        star, leaves = (up, down) if transfer.collective.spreads else (down, up)
        leaves[members] = size
        leaves[transfer.root], star[transfer.root] = 0.0, (n - 1) * size
        return _Work(up, down, (n - 1) * size, 1.0)
    if transfer.algorithm is Algorithm.PS:
        pieces = max(
            1, ceil(size / chunking.size(size))
        )  # all of them: the results end a piece after the contributions
        up[members] = size
        up[transfer.root] = (n - 1) * size
        return _Work(up, up, (n - 1) * size * (1 + 1 / pieces), 2.0, 1, pieces, through_root=True)
    pieces = chunking.of(size / n, n)
    shares = np.array([transfer.wire.bytes_for(end - start) for start, end in transfer.chunks()], dtype=float)
    if transfer.algorithm is Algorithm.RING:
        hops = 2 * (n - 1)
        up[members] = hops * shares.max()  # the largest share passes every link, and the others wait for it
        return _Work(up, up, (hops + pieces - 1) * shares.max() / pieces, float(hops), hops, pieces)
    # The owner of the largest share, whose last piece is a piece of the largest share, too.
    up[members] = size + (n - 2) * shares
    return _Work(up, up, float(up.max()) / 2 * (1 + 1 / pieces), 2.0, 2, pieces)


def _grouped(jobs: list[QueuedTransfer]) -> list[QueuedTransfer]:
    """At most about `MOST_JOBS`: those in the middle of a long phase in groups of neighbours."""
    if len(jobs) <= MOST_JOBS:
        return jobs
    middle = jobs[SINGLE:-SINGLE]
    size = -(-len(middle) // (MOST_JOBS - 2 * SINGLE))
    groups = (middle[at : at + size] for at in range(0, len(middle), size))
    return [*jobs[:SINGLE], *(_group(group) for group in groups), *jobs[-SINGLE:]]


def _group(jobs: list[QueuedTransfer]) -> QueuedTransfer:
    if len({(job.hops, job.tail) for job in jobs}) > 1:
        raise AssertionError("transfers of one phase along a backward pass are carried out alike")
    size = sum(job.hop_bytes for job in jobs)
    ready = sum(job.ready * job.hop_bytes for job in jobs) / size if size else jobs[-1].ready
    return replace(jobs[-1], ready=ready, due=min(job.due for job in jobs), hop_bytes=size)


def _calendar(plan: Plan, timetable: Timetable, condense: _Condenser) -> Calendar:
    repeating = [r for r in plan.recurrences if r.count > 1]
    once = [r.first for r in plan.recurrences if r.count == 1]
    period = lcm(*(r.every for r in repeating)) if repeating else 0
    first = max((r.first for r in repeating), default=1)
    # A one-time release inside breaks the period: it holds before the first of them that comes after `first`.
    last = min([*(r.last for r in repeating), *(step - 1 for step in once if step >= first)], default=0)
    first = max([first, *(step + 1 for step in once if step < first)])
    kinds = tuple(condense.chains(kind) for kind in timetable.kinds)
    return Calendar(timetable.steps, timetable.kind_of_step, kinds, period, first, last)
