"""The distribution of delays that is applied, against a simulation of the clamp that keeps packets in order."""

from __future__ import annotations

from math import inf
from random import Random
from statistics import fmean, stdev
from typing import Any

import pytest

from netsim.emulated.jitter import close_delay, deviation, mean_delay, middle_half, one_way_delays, unrest
from netsim.emulated.node.impairments import deviate
from netsim.links import Jitter, Link
from netsim.topology import topology_from


def link(delay: float, spread: float, distribution: str, reorder: bool = False) -> Link:
    described = {"spread": f"{spread} s", "distribution": distribution, "reorder": reorder}
    return Link("a", "b", delay, Jitter.model_validate(described))


def in_order(one: Link, spacing: float) -> list[float]:
    assert one.jitter is not None
    random, last, found = Random(1), 0.0, []
    for number in range(30_000):
        sent = number * spacing
        delay = one.delay + one.jitter.spread * deviate(one.jitter.distribution, random)
        last = max(last, sent + max(0.0, delay))
        found.append(last - sent)
    return found


@pytest.mark.parametrize("spacing", [0.0006, 0.01, 0.05])
@pytest.mark.parametrize(
    ("delay", "spread", "distribution"),
    [(0.1, 0.03, "normal"), (0.005, 0.02, "normal"), (0.04, 0.006, "uniform"), (0.04, 0.004, "pareto")],
)
def test_the_clamp_is_predicted(delay: float, spread: float, distribution: str, spacing: float) -> None:
    one = link(delay, spread, distribution)
    found = in_order(one, spacing)
    assert mean_delay(one, spacing) == pytest.approx(fmean(found), rel=0.01, abs=0.05 * spread)
    assert deviation(one, spacing) == pytest.approx(stdev(found), rel=0.15)
    assert middle_half(list(one_way_delays(one, spacing))) == pytest.approx(middle_half(found), rel=0.15)


def test_lone_packets_have_the_mean_of_the_distribution() -> None:
    assert mean_delay(link(0.1, 0.03, "normal"), inf) == pytest.approx(0.1)
    assert mean_delay(link(0.1, 0.03, "normal", reorder=True), 0.0001) == pytest.approx(0.1)
    assert mean_delay(Link("a", "b", 0.02), inf) == 0.02


def test_a_spread_beyond_the_delay_is_cut_at_zero() -> None:
    """Mean of max(0, N(5, 20)) by its closed form: 5 Phi(0.25) + 20 phi(0.25) = 10.7."""
    assert mean_delay(link(0.005, 0.02, "normal"), inf) == pytest.approx(0.01073, rel=0.01)


def test_close_packets_seem_to_wait_in_a_queue() -> None:
    """0 without jitter; with a normal one of 5 ms each way, 1.645 deviations and what close packets wait."""
    defaults: dict[str, Any] = {"up": "30 Mbit", "down": "30 Mbit", "rtt": "80 ms"}
    plain = topology_from({"name": "t", "defaults": defaults, "sites": {"a": {}, "b": {}}}, "t")
    assert unrest(plain, plain.link("a", "b")) == 0.0
    assert close_delay(plain, plain.link("a", "b")) == 0.04
    defaults["jitter"] = {"spread": "5 ms"}
    shaken = topology_from({"name": "t", "defaults": defaults, "sites": {"a": {}, "b": {}}}, "t")
    close = close_delay(shaken, shaken.link("a", "b"))
    assert 0.044 < close < 0.049
    assert unrest(shaken, shaken.link("a", "b")) == pytest.approx(2 * (close - 0.04) + 1.645 * 0.005 * 2**0.5, rel=0.01)
