"""Traffic as data: transfers, plans, and how many payload bytes they move.

A `Transfer` says what a collective must move; a `Plan` says at which steps. The closed form sums a plan, the simulator
simulates it, and the workers execute it; all three count payload bytes by the functions below.

Payload bytes are the bytes that a member hands to the network. All-reduce moves 2 (n-1) times its encoded size in
total, whichever algorithm carries it out: direct and ring as a reduce-scatter and an all-gather of (n-1) sizes each,
a parameter server as n-1 contributions in and n-1 results out (Patarasu and Yuan 2009 for the bound).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import accumulate, pairwise

from netsim.errors import LonghaulError


class WireType(StrEnum):
    """How a number travels. The quantised types carry one fp32 scale per block of `BLOCK` numbers."""

    FP64 = "fp64"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    FP4 = "fp4"  # E3M0, two to a byte
    UINT8 = "uint8"  # bytes as they are: payloads that a codec has encoded (`algorithms.compressed.codecs`)

    @property
    def bits(self) -> int:
        return {"fp64": 64, "fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "fp4": 4, "uint8": 8}[self.value]

    @property
    def blocked(self) -> bool:
        return self in (WireType.INT8, WireType.FP4)

    def bytes_for(self, elements: int) -> int:
        """Encoded size of `elements` numbers, bytes."""
        scales = 4 * -(-elements // BLOCK) if self.blocked else 0
        return -(-elements * self.bits // 8) + scales


BLOCK = 256


class Collective(StrEnum):
    ALL_REDUCE = "all_reduce"  # every member ends with the sum
    REDUCE = "reduce"  # the root ends with the sum
    BROADCAST = "broadcast"  # every member ends with the root's values
    GATHER = "gather"  # the root ends with every member's values, `elements` each
    SEND = "send"  # the root's values to the one other member
    ALL_GATHER = "all_gather"  # every member ends with every member's values, `elements` each
    REDUCE_SCATTER = "reduce_scatter"  # every member ends with the sum of its own share (`Transfer.chunks`)
    ALL_TO_ALL = "all_to_all"  # every member has `elements` numbers for each of the others

    @property
    def rooted(self) -> bool:
        """Whether all that moves comes from one member or goes to one."""
        return self in (Collective.REDUCE, Collective.BROADCAST, Collective.GATHER, Collective.SEND)

    @property
    def sums(self) -> bool:
        return self in (Collective.ALL_REDUCE, Collective.REDUCE, Collective.REDUCE_SCATTER)

    @property
    def gathers(self) -> bool:
        """Whether members send their own numbers to an owner, who adds or keeps them."""
        return not self.spreads or self is Collective.ALL_REDUCE

    @property
    def spreads(self) -> bool:
        """Whether an owner sends the same numbers to everyone."""
        return self in (Collective.ALL_REDUCE, Collective.BROADCAST, Collective.SEND, Collective.ALL_GATHER)

    @property
    def in_rows(self) -> bool:
        """Whether every member's tensor has a row of `elements` for each member."""
        return self in (Collective.ALL_GATHER, Collective.ALL_TO_ALL)


class Algorithm(StrEnum):
    """How an all-reduce is carried out; AUTO is resolved by the topology (`netsim.collectives`)."""

    AUTO = "auto"
    DIRECT = "direct"  # reduce-scatter and all-gather, each member straight to each other
    RING = "ring"
    PS = "ps"  # through `root`


@dataclass(frozen=True)
class Transfer:
    """One collective over one (flattened) tensor.

    elements: numbers in the tensor.
    members: ranks that take part, ascending.
    root: the rank at the centre of REDUCE, BROADCAST, GATHER, SEND and PS.
    ready: share of the step's backward pass after which the tensor is complete (DDP buckets); 1 is the end of the step.
    overlap: local steps that may pass until the result is used (streaming); 0 means the step waits for it.
    due: share of the next step's forward pass at which it is waited for, where layers are waited for one by one; 0 is
    before that step. For projections: a worker waits for whole transfers.
    phase: transfers of one step run together; those of phase p start when those of phase p-1 are done.
    part: for the method alone: what it moves, and which of several pieces of it (None: there is one).

    Example:
        >>> transfer = Transfer("gradients", elements=1_000_000, members=(0, 1, 2, 3))
        >>> transfer.size, transfer.payload_bytes  # bytes: of the tensor in fp32, and of all members together
        (4000000, 24000000)
    """

    name: str
    elements: int
    members: tuple[int, ...]
    wire: WireType = WireType.FP32
    collective: Collective = Collective.ALL_REDUCE
    algorithm: Algorithm = Algorithm.AUTO
    root: int | None = None
    ready: float = 1.0
    overlap: int = 0
    phase: int = 0
    due: float = 0.0
    part: tuple[str, int | None] = field(default=("", None), compare=False, repr=False)

    def __post_init__(self) -> None:
        assert self.elements >= 0
        assert self.members == tuple(sorted(set(self.members)))
        rooted = self.collective.rooted or self.algorithm is Algorithm.PS
        assert not rooted or self.root in self.members, self
        assert self.collective is not Collective.SEND or len(self.members) == 2, self
        assert self.wire is not WireType.UINT8 or not self.collective.sums, self

    @property
    def size(self) -> int:
        """Encoded size of the tensor, bytes."""
        return self.wire.bytes_for(self.elements)

    @property
    def payload_bytes(self) -> int:
        """Bytes that all members together hand to the network."""
        once = (len(self.members) - 1) * self.size
        if self.collective.in_rows:
            return len(self.members) * once
        return 2 * once if self.collective is Collective.ALL_REDUCE else once

    def rows(self, rank: int) -> int:
        """Rows of `elements` numbers that the tensor of `rank` has."""
        gathers = self.collective is Collective.GATHER and rank == self.root
        return len(self.members) if self.collective.in_rows or gathers else 1

    @property
    def carried_out_by(self) -> Algorithm:
        """Its algorithm; only an all-reduce may leave it open (AUTO)."""
        if self.collective is Collective.ALL_REDUCE:
            return self.algorithm
        return Algorithm.PS if self.collective.rooted else Algorithm.DIRECT

    def sent_by(self, rank: int, algorithm: Algorithm | None = None) -> int:
        """Bytes that `rank` hands to the network; `algorithm` stands in for AUTO."""
        if rank not in self.members:
            return 0
        others = len(self.members) - 1
        if self.collective in (Collective.REDUCE, Collective.GATHER):
            return 0 if rank == self.root else self.size
        if self.collective in (Collective.BROADCAST, Collective.SEND):
            return others * self.size if rank == self.root else 0
        if self.collective.in_rows:
            return others * self.size
        if self.collective is Collective.REDUCE_SCATTER:
            start, end = self.chunks()[self.members.index(rank)]
            return self.size - self.wire.bytes_for(end - start)
        algorithm = algorithm or self.algorithm
        assert algorithm is not Algorithm.AUTO, "the algorithm must be resolved before bytes per rank are known"
        if algorithm is Algorithm.PS:
            return others * self.size if rank == self.root else self.size
        sizes = [self.wire.bytes_for(end - start) for start, end in self.chunks()]
        place = self.members.index(rank)
        if algorithm is Algorithm.DIRECT:
            return self.size - sizes[place] + others * sizes[place]
        # Ring: in n-1 steps member i sends chunks i, i-1, ..., then as owner of i+1 it sends i+1, i, ...: all but one.
        count = len(sizes)
        return 2 * self.size - sizes[(place + 1) % count] - sizes[(place + 2) % count]

    def chunks(self) -> tuple[tuple[int, int], ...]:
        """The share [start, end) of each member, in numbers; shares start on a block so that every size adds up."""
        return split(self.elements, len(self.members), BLOCK if self.wire.blocked else 2)


def among(transfer: Transfer, members: Sequence[int]) -> Transfer:
    """The transfer without the members who are absent. LonghaulError if its root is."""
    if transfer.root is not None and transfer.root not in members:
        raise LonghaulError(f"{transfer.name!r} needs rank {transfer.root}, which is absent")
    return replace(transfer, members=tuple(rank for rank in transfer.members if rank in members))


def split(elements: int, parts: int, unit: int = 1) -> tuple[tuple[int, int], ...]:
    """[0, elements) in `parts` consecutive ranges that start at multiples of `unit` and differ by at most one unit."""
    units = -(-elements // unit)
    share, extra = divmod(units, parts)
    ends = accumulate((share + (part < extra) for part in range(parts)), initial=0)
    bounds = [min(end * unit, elements) for end in ends]
    return tuple(pairwise(bounds))


@dataclass(frozen=True)
class Recurrence:
    """`transfers` after the steps first, first + every, ... up to and including `last`. Steps count from 1."""

    transfers: tuple[Transfer, ...]
    every: int
    first: int
    last: int

    def __post_init__(self) -> None:
        assert self.every >= 1
        assert self.first >= 1

    @property
    def count(self) -> int:
        return self.count_until(self.last)

    def count_until(self, step: int) -> int:
        """How often it happens up to and including `step`."""
        return max(0, (min(step, self.last) - self.first) // self.every + 1)

    def happens_at(self, step: int) -> bool:
        return self.first <= step <= self.last and (step - self.first) % self.every == 0

    def next_from(self, step: int) -> int | None:
        """The first of its steps that is not before `step`."""
        if step <= self.first:
            candidate = self.first
        else:
            candidate = self.first + -(-(step - self.first) // self.every) * self.every
        return candidate if candidate <= self.last else None


@dataclass(frozen=True)
class Cohort:
    """From step `first` up to and including `last`, only `members` train."""

    first: int
    last: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All communication of a run of `steps` local steps on `sites` workers. Without cohorts, everyone always trains.

    Example:
        >>> average = Transfer("parameters", elements=1_000_000, members=(0, 1))
        >>> plan = Plan(sites=2, steps=100, recurrences=(Recurrence((average,), every=20, first=20, last=100),))
        >>> list(plan.sync_steps()), plan.payload_bytes  # bytes of both workers together
        ([20, 40, 60, 80, 100], 40000000)
    """

    sites: int
    steps: int
    recurrences: tuple[Recurrence, ...]
    cohorts: tuple[Cohort, ...] = ()

    def at(self, step: int) -> tuple[Transfer, ...]:
        """The transfers released by local step `step` (1-based)."""
        found = [(i, r) for i, r in self._repeating if r.happens_at(step)] + self._once.get(step, [])
        return tuple(t for _, r in sorted(found, key=lambda place: place[0]) for t in r.transfers)

    def next_from(self, step: int) -> int | None:
        """The first step not before `step` with a transfer."""
        upcoming = [found for _, r in self._repeating if (found := r.next_from(step)) is not None]
        place = bisect_left(self._once_steps, step)
        return min([*upcoming, *self._once_steps[place : place + 1]], default=None)

    @cached_property
    def _repeating(self) -> list[tuple[int, Recurrence]]:
        return [(i, r) for i, r in enumerate(self.recurrences) if r.count > 1]

    @cached_property
    def _once(self) -> dict[int, list[tuple[int, Recurrence]]]:
        """Those that happen a single time, by step: cohorts and placements make thousands of them."""
        found: dict[int, list[tuple[int, Recurrence]]] = {}
        for i, r in enumerate(self.recurrences):
            if r.count == 1:
                found.setdefault(r.first, []).append((i, r))
        return found

    @cached_property
    def _once_steps(self) -> list[int]:
        return sorted(self._once)

    def sync_steps(self) -> Iterator[int]:
        """The steps with a transfer, ascending."""
        step = self.next_from(1)
        while step is not None:
            yield step
            step = self.next_from(step + 1)

    @cached_property
    def _cohort_starts(self) -> list[int]:
        return [cohort.first for cohort in self.cohorts]

    def active(self, step: int) -> tuple[int, ...]:
        """The ranks that train in `step`."""
        place = bisect_right(self._cohort_starts, step) - 1
        if place >= 0 and step <= self.cohorts[place].last:
            return self.cohorts[place].members
        return tuple(range(self.sites))

    @property
    def payload_bytes(self) -> int:
        """Bytes that all workers together hand to the network in the whole run."""
        return self.payload_bytes_until(self.steps)

    def payload_bytes_until(self, step: int) -> int:
        """The same for a run that ends after local step `step`."""
        return sum(r.count_until(step) * t.payload_bytes for r in self.recurrences for t in r.transfers)

    @property
    def payload_bytes_per_worker(self) -> float:
        """Mean over the workers."""
        return self.payload_bytes / self.sites

    def padded(self, fillers: Plan) -> Plan:
        """The plan with `fillers` beside it, which move at the same steps."""
        return replace(self, recurrences=(*self.recurrences, *fillers.recurrences))

    def truncated(self, steps: int) -> Plan:
        """The plan of a run that ends after local step `steps`."""
        if steps >= self.steps:
            return self
        recurrences = tuple(replace(r, last=min(r.last, steps)) for r in self.recurrences if r.first <= steps)
        cohorts = tuple(replace(c, last=min(c.last, steps)) for c in self.cohorts if c.first <= steps)
        return replace(self, steps=steps, recurrences=recurrences, cohorts=cohorts)

    def merged(self, most: int) -> Plan:
        """The plan with at most `most` transfers per step, phase and group of members: neighbours become one, released
        with the last of them. Bytes stay the same; a merged bucket leaves later than its first part would have."""
        if all(len(r.transfers) <= most for r in self.recurrences):
            return self
        merged = (replace(r, transfers=_merged(r.transfers, most)) for r in self.recurrences)
        return replace(self, recurrences=tuple(merged))


def _merged(transfers: tuple[Transfer, ...], most: int) -> tuple[Transfer, ...]:
    kinds: dict[object, list[Transfer]] = {}
    for t in transfers:
        kinds.setdefault((t.members, t.wire, t.collective, t.algorithm, t.root, t.overlap, t.phase), []).append(t)
    merged: list[Transfer] = []
    for kind in kinds.values():
        size = -(-len(kind) // most)
        parts = [kind[at : at + size] for at in range(0, len(kind), size)]
        merged += [replace(part[-1], elements=sum(t.elements for t in part)) for part in parts]
    return tuple(merged)
