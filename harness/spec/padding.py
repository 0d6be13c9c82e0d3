"""Padding: filler transfers beside a method's own, so that a small model's run moves what a large model's would.

After a step, transfers that differ in nothing but name, size, wire type and moment of release are of one kind. Of each
kind the run moves `share` of the target's bytes: its own transfers, and fillers for the rest, which are released along
the backward pass as the target's are, as far as the run's own transfers leave room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, floor, inf, log10

from netsim.errors import InputError
from netsim.traffic import Plan, Recurrence, Transfer, WireType

# Where the fillers that stand for a step's buckets end, as shares of all bytes. A network that is busy all
# along begins with the first bucket, so the first filler is small and leaves early.
PIECES = (1 / 32, *(eighth / 8 for eighth in range(1, 9)))
LEAST_PIECE = 1 / 64  # of a kind's bytes: a smaller piece leaves with the next one

_WIRE, _NUMBER = WireType.FP32, 4  # bytes; fp32 needs no encoding, so that fillers cost the host little

Kinds = dict[tuple[object, ...], list[Transfer]]


def filler_plan(own: Plan, target: Plan, share: float, where: str) -> Plan:
    """The fillers by which a run of `own` moves `share` of the payload bytes of `target`, to within 2 bytes a kind.

    Raises InputError where the two do not move the same kinds of transfers after the same steps, and for a `share` that
    `own` alone exceeds.
    """
    beside: dict[tuple[Transfer, ...], list[int]] = {}
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Transfer, ...]] = {}
    least = 0.0
    for step in sorted({*own.sync_steps(), *target.sync_steps()}):
        ours, theirs = own.at(step), target.at(step)
        key = tuple(map(id, ours)), tuple(map(id, theirs))  # a plan's transfers are few, its steps many
        if key not in known:
            pairs = _pairs(ours, theirs, step, where)
            least = max([least, *(_size(mine) / _size(whole) for mine, whole in pairs)])
            known[key] = tuple(_fillers(pairs, share))
        beside.setdefault(known[key], []).append(step)
    if least > share:
        allowed = f"{_rounded_up(least):g} or more: so much the small model's own transfers are of the target's"
        raise InputError(where, "stands_for.bytes", share, allowed)
    recurrences = (r for transfers, steps in beside.items() if transfers for r in _recurring(transfers, steps))
    return Plan(own.sites, own.steps, tuple(recurrences))


def _kinds(transfers: Sequence[Transfer]) -> Kinds:
    found: Kinds = {}
    for t in transfers:
        if t.size and len(t.members) > 1:
            found.setdefault((t.members, t.collective, t.algorithm, t.root, t.overlap, t.phase), []).append(t)
    return found


def _size(transfers: Sequence[Transfer]) -> int:
    return sum(t.size for t in transfers)


def _pairs(
    ours: Sequence[Transfer], theirs: Sequence[Transfer], step: int, where: str
) -> list[tuple[list[Transfer], list[Transfer]]]:
    """The run's own transfers and the target's, kind by kind."""
    own, target = _kinds(ours), _kinds(theirs)
    if own.keys() != target.keys():
        found = f"{', '.join(t.name for t in ours) or 'nothing'} after step {step}"
        allowed = (
            f"what moves alike in the target, which has {', '.join(t.name for t in theirs[:8]) or 'nothing'} there"
        )
        raise InputError(where, "options", found, f"{allowed} (periods, members and collectives must agree)")
    return [(own[kind], target[kind]) for kind in own]


def _fillers(pairs: Sequence[tuple[list[Transfer], list[Transfer]]], share: float) -> Iterator[Transfer]:
    for index, (own, target) in enumerate(pairs):
        like = target[0]
        for place, (ready, size) in enumerate(_pieces(own, target, share)):
            yield Transfer(
                f"filler/{index}/{place}",
                size // _NUMBER,
                like.members,
                _WIRE,
                like.collective,
                like.algorithm,
                like.root,
                ready,
                like.overlap,
                like.phase,
            )


def _pieces(own: Sequence[Transfer], target: Sequence[Transfer], share: float) -> Iterator[tuple[float, int]]:
    """(ready, bytes) of one kind's fillers.

    At each release the bytes released so far are brought to the target's, but never so far that those of the run's own
    transfers which come later would exceed the whole.
    """
    goal, filled = share * _size(target), 0
    places = _releases(target)
    for place, (ready, part) in enumerate(places, start=1):
        before = sum(t.size for t in own if t.ready <= ready)
        after = sum(t.size for t in own if t.ready > ready)
        missing = min(part * goal, goal - after) - before - filled
        last = place == len(places)
        size = _NUMBER * (round(missing / _NUMBER) if last else floor(missing / _NUMBER))
        if size > 0 and (last or size >= LEAST_PIECE * goal):
            filled += size
            yield ready, size


def _releases(target: Sequence[Transfer]) -> list[tuple[float, float]]:
    """(ready, share of all bytes released by then). A piece of many buckets leaves when its middle one does."""
    if all(t.ready == 1 for t in target):
        return [(1.0, 1.0)]
    ordered, whole = sorted(target, key=lambda t: t.ready), _size(target)
    found: list[tuple[float, float]] = []
    pieces = list(pairwise((0.0, *PIECES)))
    passed = 0
    for t in ordered:
        passed += t.size
        while len(found) < len(pieces) and passed >= sum(pieces[len(found)]) / 2 * whole:
            found.append((t.ready, PIECES[len(found)]))
    return found


def _recurring(transfers: tuple[Transfer, ...], steps: Sequence[int]) -> Iterator[Recurrence]:
    """`transfers` after all of `steps`, which ascend."""
    place = 0
    while place < len(steps):
        every = steps[place + 1] - steps[place] if place + 1 < len(steps) else 1
        end = place
        while end + 1 < len(steps) and steps[end + 1] - steps[end] == every:
            end += 1
        yield Recurrence(transfers, every, steps[place], steps[end])
        place = end + 1


def _rounded_up(value: float) -> float:
    """To three digits, so that it still suffices when it is copied."""
    if not 0 < value < inf:
        return value
    unit = 10.0 ** (floor(log10(value)) - 2)
    return ceil(value / unit) * unit
