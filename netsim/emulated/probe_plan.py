"""Which pairs a link check probes: all of a small network, of a large one those that can differ. Pure functions.

What a node is set up with is read back for every pair; probes cover what reading cannot. Between N sites there are
2 N access links and N (N-1) pairs, most of them alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from netsim.topology import Topology

Pair = tuple[str, str]
ALL_UP_TO = 8  # sites whose pairs are all probed


@dataclass(frozen=True)
class ProbePlan:
    """The pairs to probe. inferred: how many others are of the same class as a probed pair; by `a -> b`, or empty text
    for pairs whose class was not drawn, of which only the access links are probed."""

    pairs: tuple[Pair, ...]
    inferred: dict[str, int]
    seed: int


def plan_probes(topology: Topology, seed: int, seconds: Callable[[Sequence[Pair]], float], limit: float) -> ProbePlan:
    """Every access link once each way, then pairs of distinct classes, then a random sample, as far as time allows.

    seconds: how long probing some pairs takes; limit: how long it may take. Access links are always probed.
    """
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    count = len(topology.sites)
    if count <= ALL_UP_TO:
        return ProbePlan(tuple(pairs), {}, seed)
    random = Random(f"probes:{seed}")
    ring = random.sample([site.name for site in topology.sites], count)
    chosen = list(zip(ring, [*ring[1:], ring[0]], strict=True))
    rest = random.sample([pair for pair in pairs if pair not in set(chosen)], len(pairs) - count)
    seen = {_class_of(topology, pair) for pair in chosen}
    distinct: list[Pair] = []
    for pair in rest:
        if len(distinct) < count // 2 and (kind := _class_of(topology, pair)) not in seen:
            seen.add(kind)
            distinct.append(pair)
    chosen += distinct
    chosen += [pair for pair in rest if pair not in set(distinct)][: count // 4]
    while len(chosen) > count and seconds(chosen) > limit:
        del chosen[max(count, len(chosen) - max(1, count // 8)) :]
    probed = set(chosen)
    representative = {_class_of(topology, pair): f"{pair[0]} -> {pair[1]}" for pair in reversed(chosen)}
    others = (representative.get(_class_of(topology, pair), "") for pair in pairs if pair not in probed)
    return ProbePlan(tuple(pair for pair in pairs if pair in probed), dict(Counter(others)), seed)


def _class_of(topology: Topology, pair: Pair) -> Hashable:
    """Pairs of one class are asked to be the same in everything."""
    link = replace(topology.link(*pair), source="", target="")
    return link, topology.rtt(*pair), topology.rate(*pair), topology.queue(*pair), topology.core_of(*pair)


def disjoint_rounds(
    pairs: Iterable[Pair], *, both_ways: bool, core: Callable[[Pair], Collection[str]] = lambda pair: ()
) -> list[list[Pair]]:
    """Pairs in rounds that share no access link in one direction, nor a core link; unless `both_ways`, no site at all.

    core: the names of the core links that a pair crosses.
    """
    rounds: list[tuple[set[tuple[str, str]], list[Pair]]] = []
    for source, target in pairs:
        ends = {("up", source), ("down", target), *(("core", name) for name in core((source, target)))}
        if not both_ways:
            ends |= {("down", source), ("up", target), *(("core", name) for name in core((target, source)))}
        for taken, members in rounds:
            if not taken & ends:
                taken |= ends
                members.append((source, target))
                break
        else:
            rounds.append((ends, [(source, target)]))
    return [members for _, members in rounds]
