"""Windows that begin in slow start: what ends it, and how they grow then."""

from __future__ import annotations

import numpy as np
import pytest

from netsim.links import Transport
from netsim.simulated.cold_windows import ColdWindows, standing
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import simulate
from netsim.topology import Link, Site, Topology, topology_from
from netsim.traffic import Collective, Plan, Recurrence, Transfer

SEGMENT = 1448
AT = (np.array([0]), np.array([1]))
FAR, NEAR = 0.03, 0.005  # seconds, one way


def windows(segments: float) -> ColdWindows:
    """Of two sites, that from the first to the second so many segments."""
    cold = ColdWindows.unlimited(2)
    cold.size[AT] = segments * SEGMENT
    return cold


def grown(cold: ColdWindows, rtt: float, queue: float, times: int = 1) -> float:
    """Segments of the window after round trips with such a queue."""
    for _ in range(times):
        cold.grow(AT, np.array([rtt]), np.array([queue]), np.array([float(SEGMENT)]))
    return float(cold.size[AT][0]) / SEGMENT


@pytest.mark.parametrize(
    ("segments", "rtt", "queue", "then"),
    [
        (40, 0.08, 0.0, 80),
        (40, 0.08, 0.0099, 80),
        (40, 0.08, 0.0101, 56),  # an eighth of the round trip
        (40, 0.01, 0.0039, 80),
        (40, 0.01, 0.0041, 56),  # at least 4 ms
        (40, 0.4, 0.0159, 80),
        (40, 0.4, 0.0161, 56),  # at most 16 ms
        (10, 0.08, 0.05, 20),  # too few segments to judge
    ],
)
def test_a_window_doubles_until_it_sees_a_queue(segments: float, rtt: float, queue: float, then: float) -> None:
    assert grown(windows(segments), rtt, queue) == pytest.approx(then)


def test_a_window_grows_by_the_cube_of_time_after_slow_start() -> None:
    cold = windows(40)
    assert grown(cold, 0.1, 0.02) == pytest.approx(56)
    assert grown(cold, 0.1, 0.0) == pytest.approx(56 * 1.05)
    assert grown(cold, 1.0, 0.0, times=10) == pytest.approx(56 + 0.4 * (0.1 + 10 + 1) ** 3)


def test_a_copy_is_not_changed_and_differs_in_its_state() -> None:
    cold = windows(40)
    copy = cold.copy()
    assert copy.state() == cold.state()
    grown(cold, 0.1, 0.02)
    assert copy.size[AT] == 40 * SEGMENT
    assert copy.state() != cold.state()


def test_what_flows_have_too_much_in_flight_stands_in_the_queue() -> None:
    """Twice what 1 MB/s and 100 ms hold: another 100 ms. Two flows of 10 and 90 ms that share 1 MB/s, by hand."""
    free = np.array([np.inf])
    assert standing(np.array([200e3]), np.array([0.1]), free, 1e6) == pytest.approx(0.1, rel=1e-6)
    assert standing(np.array([100e3]), np.array([0.1]), free, 1e6) == 0
    shared = standing(np.array([15e3, 50e3]), np.array([0.01, 0.09]), np.full(2, np.inf), 1e6)
    assert 15e3 / (0.01 + shared) + 50e3 / (0.09 + shared) == pytest.approx(1e6, rel=1e-6)
    # A flow that its uplink holds to 200 kB/s brings no more than that.
    assert standing(np.array([15e3, 50e3]), np.array([0.01, 0.09]), np.array([2e5, np.inf]), 1e6) == 0


def cold_seconds(transfer: Transfer, topology: Topology) -> float:
    """Of a transfer among three sites over connections that have carried nothing yet."""
    plan = Plan(3, 1, (Recurrence((transfer,), 1, first=1, last=1),))
    cold = LinkModel(cold_start=True, streams=1)
    return simulate(plan, topology, Compute((0.0,) * 3), link_model=cold).wall_seconds


def gathered(control: str, near: bool) -> float:
    """Seconds until two sites have sent 8 MB each to a third one over its downlink; one of them may be near to it."""
    sites = tuple(Site(name, 100e6, 100e6) for name in ("server", "one", "other"))
    delays = {"one": NEAR if near else FAR, "other": FAR}
    links = tuple(
        Link(a.name, b.name, delays[b.name if a.name == "server" else a.name] if "server" in (a.name, b.name) else FAR)
        for a in sites
        for b in sites
        if a is not b
    )
    transport = Transport.model_validate({"congestion_control": control})
    reduce = Transfer("sum", 2_000_000, (0, 1, 2), collective=Collective.REDUCE, root=0)
    return cold_seconds(reduce, Topology("t", sites, links, transport=transport))


def test_a_near_site_ends_the_slow_start_of_a_far_one() -> None:
    """Cubic sees the queue that the near site makes, Reno would go on until packets are lost."""
    assert gathered("cubic", near=True) > 1.2 * gathered("reno", near=True)
    assert gathered("cubic", near=False) == pytest.approx(gathered("reno", near=False), rel=0.2)


def exchanged(jitter: str | None) -> float:
    """Seconds of an all-reduce of 3 MB among three sites of 30 Mbit/s and 80 ms."""
    defaults = {
        "up": "30 Mbit",
        "down": "30 Mbit",
        "rtt": "80 ms",
        **({"jitter": {"spread": jitter}} if jitter else {}),
    }
    topology = topology_from({"name": "t", "defaults": defaults, "sites": {"a": {}, "b": {}, "c": {}}}, "t")
    return cold_seconds(Transfer("sum", 750_000, (0, 1, 2)), topology)


def test_a_connection_takes_much_jitter_for_a_queue() -> None:
    """Little is below the threshold, and costs what close packets wait for each other."""
    assert exchanged(None) < exchanged("500 us") < exchanged(None) + 0.02
    assert exchanged("5 ms") > exchanged(None) + 0.1
