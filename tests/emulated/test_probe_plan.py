"""Which pairs a check probes: all of few sites, and of many those that can differ, within the time allowed."""

from __future__ import annotations

import pytest

from netsim.emulated.probe_plan import disjoint_rounds, plan_probes
from netsim.topology import Topology, topology_from


def network(count: int, links: list[dict[str, object]] | None = None) -> Topology:
    return topology_from(
        {
            "name": "many",
            "defaults": {"up": "50 Mbit", "down": "50 Mbit", "delay": "25 ms"},
            "sites": {f"s{number}": {} for number in range(count)},
            "links": links or [],
        },
        "test",
    )


def test_every_pair_of_few_sites_is_probed() -> None:
    plan = plan_probes(network(8), 0, len, 1)
    assert len(plan.pairs) == 56
    assert plan.inferred == {}


@pytest.mark.parametrize("count", [9, 32, 64])
def test_every_access_link_of_many_sites_is_probed_each_way(count: int) -> None:
    plan = plan_probes(network(count), 3, len, 1)
    assert {a for a, _ in plan.pairs} == {b for _, b in plan.pairs} == {f"s{number}" for number in range(count)}
    assert len(plan.pairs) == count
    assert sum(plan.inferred.values()) == count * (count - 1) - count


def test_pairs_that_are_asked_to_differ_are_probed() -> None:
    odd: list[dict[str, object]] = [
        {"from": "s1", "to": "s7", "delay": "80 ms"},
        {"from": "s2", "to": "s9", "loss": "1 %"},
    ]
    plan = plan_probes(network(32, odd), 0, len, 1000)
    # The way back of the slow pair has its round trip too, and is a class of its own.
    assert {("s1", "s7"), ("s7", "s1"), ("s2", "s9")} <= set(plan.pairs)


def test_the_sample_follows_from_the_seed() -> None:
    plans = [plan_probes(network(32), seed, len, 1000) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0].pairs != plans[2].pairs
    assert len(plans[0].pairs) == 32 + 8


@pytest.mark.parametrize("both_ways", [True, False])
def test_rounds_share_no_access_link_and_cover_every_pair(both_ways: bool) -> None:
    pairs = [(a, b) for a in "abcdef" for b in "abcdef" if a != b]
    rounds = disjoint_rounds(pairs, both_ways=both_ways)
    assert sorted(pair for together in rounds for pair in together) == pairs
    for together in rounds:
        sources, targets = [a for a, _ in together], [b for _, b in together]
        assert len(set(sources)) == len(sources)
        assert len(set(targets)) == len(targets)
        assert both_ways or not set(sources) & set(targets)
