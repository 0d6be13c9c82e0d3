"""Inputs of the fault model: fault events, the method's response, durations. In the command line; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from netsim.traffic import Algorithm, Collective, Plan, Transfer

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class FaultEvent:
    """A fault of one worker: at the start of local step `step`, or when the training clock shows `at` seconds.

    lasts: seconds; of a pause, and of a crash until the program is started again (None: never).
    factor: how many times as long a straggler's step takes.
    """

    kind: Literal["crash", "pause", "straggle", "corrupt", "short"]
    rank: int
    step: int | None = None
    at: float | None = None
    lasts: float | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class FaultModelInputs:
    """What the cost follows from; seconds, bytes, tokens.

    after_loss, survives, catch_up: of the method (`algorithms.method.Method`).  algorithm: of an all-reduce that leaves
    it open.
    exposed: how long transfers that are released together make their step wait; the flag: over new connections.
    timeout: after which a silent peer is given up.  round_trip: the longest between two sites.
    rendezvous: for a view to be decided and heard, beyond the round trips of connecting.
    start: of a trainer's program.
    grace: for members whom nobody reaches to report.  at_once: bytes for one peer that a host takes off a worker's
    hands while the loss of another is being noticed.  paced: steps have a declared length, and sites return at a step.
    """

    plan: Plan
    after_loss: Literal["redo", "resync", "rollback"]
    survives: Callable[[Ranks], bool]
    catch_up: Callable[[int, Ranks, Ranks], Sequence[Transfer]]
    algorithm: Callable[[Transfer], Algorithm]
    exposed: Callable[[tuple[Transfer, ...], bool], float]
    step_seconds: float
    tokens_per_step: int
    evaluate_every: int
    evaluation_seconds: float = 0.0
    checkpoint_every: int = 0
    checkpoint_seconds: float = 0.0
    timeout: float = 120.0
    round_trip: float = 0.0
    rendezvous: float = 0.0
    start: float = 0.0
    grace: float = 0.0
    at_once: int = 1 << 62
    paced: bool = False

    def resolve(self, transfer: Transfer) -> Algorithm:
        """How a transfer is carried out."""
        fixed = transfer.algorithm is not Algorithm.AUTO or transfer.collective is not Collective.ALL_REDUCE
        return transfer.algorithm if fixed else self.algorithm(transfer)


def touches(transfer: Transfer, algorithm: Algorithm, one: int, other: int) -> bool:
    """Whether two members send to each other in this transfer, so that either notices the other's loss by itself."""
    if transfer.collective.rooted or algorithm is Algorithm.PS:
        return transfer.root in (one, other)
    if algorithm is Algorithm.RING:
        places = [transfer.members.index(rank) for rank in (one, other)]
        return abs(places[0] - places[1]) in (1, len(transfer.members) - 1)
    return True


def first_hand(transfer: Transfer, algorithm: Algorithm, rank: int) -> dict[int, int]:
    """By peer, the bytes that a member can hand over without waiting for anybody: its own numbers."""
    others = [member for member in transfer.members if member != rank]
    if transfer.collective in (Collective.BROADCAST, Collective.SEND):
        return dict.fromkeys(others, transfer.size) if rank == transfer.root else {}
    if transfer.collective.in_rows:
        return dict.fromkeys(others, transfer.size)
    if transfer.collective.rooted or algorithm is Algorithm.PS:
        assert transfer.root is not None
        return {} if rank == transfer.root else {transfer.root: transfer.size}
    sizes = [transfer.wire.bytes_for(end - start) for start, end in transfer.chunks()]
    place = transfer.members.index(rank)
    if algorithm is Algorithm.RING:
        return {transfer.members[(place + 1) % len(sizes)]: sizes[place]}
    return dict(zip(others, [*sizes[:place], *sizes[place + 1 :]], strict=True))


@dataclass(frozen=True)
class Broken:
    """A transfer that nobody has the result of. missed: members who were gone before it began."""

    transfer: Transfer
    missed: frozenset[int] = frozenset()


def broken_off(
    terms: FaultModelInputs,
    transfers: Sequence[Broken],
    silent: Collection[int],
    dead: Collection[int],
    parted: Collection[tuple[int, int]],
) -> int:
    """Bytes of transfers that were to run together and broke off.

    silent: members who stand still; who waits for one has time to send all that it can.  dead: members who are gone by
    now.  parted: pairs who have thrown each other out. Who notices by itself that somebody is missing sends nothing,
    the others hear of it while their first bytes are on their way.
    """
    total, first = 0, min((broken.transfer.phase for broken in transfers), default=0)
    handed: Counter[tuple[int, int]] = Counter()  # by sender and receiver
    for broken in transfers:
        transfer = broken.transfer
        members, algorithm = set(transfer.members), terms.resolve(transfer)
        if transfer.phase != first:
            continue
        if silent and not members & set(silent):
            total += transfer.payload_bytes
            continue
        losses = [(rank, other) for rank in members for other in members & broken.missed]
        losses += [pair for a, b in parted if {a, b} <= members for pair in ((a, b), (b, a))]
        aware = {rank for rank, other in losses if touches(transfer, algorithm, rank, other)}
        for rank in members - aware - set(silent) - set(dead):
            for peer, size in first_hand(transfer, algorithm, rank).items():
                handed[rank, peer] += size
    return total + sum(size if silent else min(size, terms.at_once) for size in handed.values())
