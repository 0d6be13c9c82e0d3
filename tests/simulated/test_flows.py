"""Max-min fair sharing, and flows over time."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from netsim.simulated.fair_rates import FREE, Routes, max_min
from netsim.simulated.flows import FlowNetwork

INF = np.inf


def rates(paths: list[list[int]], capacity: list[float], caps: list[float] | None = None) -> list[float]:
    limits = np.array(caps if caps is not None else [INF] * len(paths))
    return [round(r, 9) for r in max_min(np.array(paths), limits, np.array([INF, *capacity])).tolist()]


def test_flows_of_one_uplink_share_it_equally() -> None:
    assert rates([[1, FREE, 2], [1, FREE, 3]], [10, 100, 100]) == [5, 5]


def test_what_a_slow_receiver_leaves_goes_to_the_others() -> None:
    assert rates([[1, FREE, 2], [1, FREE, 3]], [10, 2, 100]) == [2, 8]


def test_a_pair_cap_binds_below_both_access_links() -> None:
    assert rates([[1, 4, 2], [1, FREE, 3]], [10, 100, 100, 1]) == [1, 9]


def test_a_flow_is_held_by_its_own_window() -> None:
    assert rates([[1, FREE, 2], [1, FREE, 3]], [10, 100, 100], [3, INF]) == [3, 7]


@given(st.integers(2, 6), st.integers(1, 20), st.randoms(use_true_random=False))
def test_rates_are_max_min_fair(sites: int, flows: int, random: Random) -> None:
    """No rate can grow without taking from one that is not larger."""
    capacity = np.array([INF, *(random.uniform(1, 10) for _ in range(2 * sites))])
    pairs = [random.sample(range(sites), 2) for _ in range(flows)]
    paths = np.array([[1 + a, FREE, 1 + sites + b] for a, b in pairs])
    found = max_min(paths, np.full(flows, INF), capacity)
    used = np.zeros(len(capacity))
    for path, rate in zip(paths, found, strict=True):
        np.add.at(used, path, rate)
    assert (used[1:] <= capacity[1:] * (1 + 1e-6)).all()
    for path, rate in zip(paths, found, strict=True):
        bottlenecks = [r for r in path if r != FREE and used[r] >= capacity[r] * (1 - 1e-6)]
        assert any(rate >= found[(paths == r).any(axis=1)].max() * (1 - 1e-6) for r in bottlenecks)


def test_each_set_of_routes_has_its_own_fair_rates() -> None:
    """What is remembered of one set is not taken for another, nor for other capacities."""
    paths = np.array([[1, FREE, 3], [1, FREE, 4], [2, FREE, 4]])
    routes = Routes(paths, np.array([INF, INF, 2.0]), np.array([INF, 10.0, 10.0, 100.0, 100.0]))
    slots, none = routes.slots_of(np.array([2, 0, 1])), np.full(3, INF)
    for _ in range(2):
        assert routes.rates(np.array([True, True, True]), none)[slots].tolist() == [2.0, 5.0, 5.0]
        assert routes.rates(np.array([False, True, False]), none)[slots].tolist() == [0.0, 10.0, 0.0]
    routes.become(np.array([INF, 1.0, INF]), np.array([INF, 10.0, 4.0, 100.0, 100.0]), np.zeros(3))
    assert routes.rates(np.array([True, True, True]), none)[slots].tolist() == [4.0, 9.0, 1.0]


def test_flows_of_one_route_have_its_share_by_what_each_may_have() -> None:
    """Two on one route and one on another cross one link: what the first two may not have goes to the third."""
    routes = Routes(
        np.array([[1, FREE, 2], [1, FREE, 3]]), np.full(2, INF), np.array([INF, 12.0, 100.0, 100.0]), lanes=2
    )
    slots = routes.slots_of(np.array([0, 1, 2]))
    used = np.array([True, True, True])
    assert routes.rates(used, np.array([4.0, 8.0, 20.0]))[slots].tolist() == pytest.approx([2.0, 4.0, 6.0])
    assert routes.rates(used, np.array([1.0, 2.0, 20.0]))[slots].tolist() == pytest.approx([1.0, 2.0, 9.0])
    assert routes.rates(used, np.array([4.0, 8.0, INF]))[slots].tolist() == pytest.approx([2.0, 4.0, 6.0])
    assert routes.rates(used, np.array([4.0, INF, 20.0]))[slots].tolist() == pytest.approx([3.0, 3.0, 6.0])


@pytest.mark.parametrize(
    ("beside", "with_it", "without"),
    [
        (3.0, [2.0, 5.0, 5.0], [6.0, 6.0]),  # a third of the uplink for both, of which it takes three fifths
        (9.0, [0.2, 5.0, 5.0], [5.0, 5.0]),  # no more than that third, of which a flow keeps next to nothing
    ],
)
def test_what_does_not_yield_has_one_flows_share(beside: float, with_it: list[float], without: list[float]) -> None:
    paths = np.array([[1, FREE, 2], [1, FREE, 3], [1, FREE, 4]])
    capacity = np.array([INF, 15.0, 100.0, 100.0, 100.0])
    routes = Routes(paths, np.full(3, INF), capacity, np.array([beside, 0.0, 0.0]))
    slots, none = routes.slots_of(np.arange(3)), np.full(3, INF)
    assert routes.rates(np.array([True, True, True]), none)[slots].tolist() == pytest.approx(with_it)
    assert routes.rates(np.array([False, True, True]), none)[slots].tolist() == pytest.approx([0.0, *without])


def test_a_flow_speeds_up_when_another_ends() -> None:
    env = simpy.Environment()
    routes = Routes(np.array([[1, FREE, 2], [1, FREE, 2]]), np.full(2, INF), np.array([INF, 10.0, 100.0]))
    network = FlowNetwork(env, routes)
    log: list[tuple[float, int]] = []
    network.start(np.arange(2), np.array([10.0, 30.0]), lambda done: log.extend((env.now, d) for d in done))
    env.run()
    assert [(round(when, 6), which) for when, which in log] == [(2.0, 0), (4.0, 1)]


def test_a_flow_waits_out_a_cut_and_goes_on() -> None:
    env = simpy.Environment()
    routes = Routes(np.array([[1, FREE, 2]]), np.array([INF]), np.array([INF, 10.0, 100.0]))
    network = FlowNetwork(env, routes)
    log: list[float] = []
    network.start(np.array([0]), np.array([20.0]), lambda _: log.append(env.now))

    def become(rate: float) -> None:
        routes.become(np.array([INF]), np.array([INF, rate, 100.0]), np.zeros(1))
        network.change()

    def cut() -> Generator[simpy.Event, Any, None]:
        yield env.timeout(1)
        become(0.0)
        yield env.timeout(5)
        become(5.0)

    env.process(cut())
    env.run()
    assert [round(when, 6) for when in log] == [8.0]
