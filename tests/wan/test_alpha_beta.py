"""The alpha-beta model: literal costs where they can be written down, and relations elsewhere."""

from __future__ import annotations

import pytest

from netsim.collectives import bound, choose, cost, floor, select_algorithm, streams_per_pair, suited
from netsim.framing import goodput
from netsim.topology import Topology, topology_from
from netsim.traffic import Algorithm, Collective, Transfer, WireType

MB25 = 6_250_000  # numbers of four bytes


def star(sites: int, rate: str, rtt: str, **site_rates: str) -> Topology:
    document = {
        "name": "star",
        "defaults": {"up": rate, "down": rate, "rtt": rtt},
        "sites": {
            f"s{i}": ({"up": site_rates[f"s{i}"], "down": site_rates[f"s{i}"]} if f"s{i}" in site_rates else {})
            for i in range(sites)
        },
    }
    return topology_from(document, "star")


def reduce_among(sites: int, elements: int = MB25, **fields: object) -> Transfer:
    return Transfer("t", elements, tuple(range(sites)), **fields)  # type: ignore[arg-type]  # fields are a test's own


def test_direct_costs_two_delays_and_its_payload_share() -> None:
    """Direct costs two delays and its share of the payload at goodput."""
    found = cost(star(4, "1 Gbit", "200 ms"), reduce_among(4), Algorithm.DIRECT)
    assert found.latency == pytest.approx(0.2)
    assert found.transmission == pytest.approx(1.5 * 25e6 * 8 / goodput(1e9, 1500), rel=1e-6)


def test_a_ring_of_four_costs_six_delays_and_the_same_bytes() -> None:
    topology = star(4, "1 Gbit", "200 ms")
    ring, direct = (cost(topology, reduce_among(4), a) for a in (Algorithm.RING, Algorithm.DIRECT))
    assert ring.latency == pytest.approx(0.6)
    assert ring.transmission == pytest.approx(direct.transmission, rel=1e-6)


def test_a_parameter_server_costs_two_delays_and_n_1_payloads() -> None:
    """A parameter server costs two delays and a payload per other member."""
    found = cost(star(4, "1 Gbit", "200 ms"), reduce_among(4, root=0), Algorithm.PS)
    assert found.latency == pytest.approx(0.2)
    assert found.transmission == pytest.approx(3 * 25e6 * 8 / goodput(1e9, 1500), rel=1e-6)


def test_equal_sites_choose_direct() -> None:
    assert choose(star(8, "100 Mbit", "50 ms"), reduce_among(8, root=0)) is Algorithm.DIRECT


@pytest.mark.parametrize("rtt", ["1 ms", "10 ms", "35 ms", "70 ms", "200 ms"])
@pytest.mark.parametrize("elements", [100, 999_999, MB25])
def test_two_sites_go_direct_whatever_the_rounding(rtt: str, elements: int) -> None:
    assert choose(star(2, "100 Mbit", rtt), reduce_among(2, elements)) is Algorithm.DIRECT


def test_a_root_in_a_data_centre_is_worth_a_parameter_server() -> None:
    topology = star(4, "100 Mbit", "50 ms", s2="1 Gbit")
    assert choose(topology, reduce_among(4, root=2)) is Algorithm.PS
    assert choose(topology, reduce_among(4)) is Algorithm.DIRECT


def test_slow_pairs_off_the_ring_are_worth_a_ring() -> None:
    document = {
        "name": "slow-diagonals",
        "defaults": {"up": "1 Gbit", "down": "1 Gbit", "rtt": "10 ms"},
        "sites": {name: {} for name in "abcd"},
        "links": [{"between": ["a", "c"], "rate": "10 Mbit"}, {"between": ["b", "d"], "rate": "10 Mbit"}],
    }
    assert choose(topology_from(document, "here"), reduce_among(4)) is Algorithm.RING


@pytest.mark.parametrize(
    ("sites", "rate", "rtt", "elements", "expected"),
    [
        (4, "250 Mbit", "10 ms", MB25, Algorithm.DIRECT),  # three connections share a downlink well
        (6, "250 Mbit", "10 ms", MB25, Algorithm.DIRECT),
        (8, "250 Mbit", "10 ms", MB25, Algorithm.RING),
        (8, "250 Mbit", "200 ms", MB25, Algorithm.RING),  # a hop takes 105 ms to send, 100 to arrive
        (8, "250 Mbit", "200 ms", MB25 // 10, Algorithm.DIRECT),  # the ring's 14 delays would show
        (3, "1 Gbit", "10 ms", MB25, Algorithm.DIRECT),
        (4, "1 Gbit", "10 ms", MB25, Algorithm.RING),  # a fast one is shared well by fewer
        (4, "1 Gbit", "200 ms", MB25, Algorithm.DIRECT),
        (4, "1 Gbit", "0.2 ms", MB25 // 10, Algorithm.DIRECT),  # nor do short ones need it
    ],
)
def test_many_or_fast_sites_use_a_ring_for_large_payloads(
    sites: int, rate: str, rtt: str, elements: int, expected: Algorithm
) -> None:
    """Many sites or fast ones pass large payloads around a ring."""
    assert select_algorithm(star(sites, rate, rtt), reduce_among(sites, elements)) is expected


@pytest.mark.parametrize("wire", [WireType.FP4, WireType.INT8])
def test_quantised_sums_never_go_around_a_ring(wire: WireType) -> None:
    """A ring would round the sum at every hop."""
    topology = star(8, "250 Mbit", "10 ms")
    assert select_algorithm(topology, reduce_among(8, wire=WireType.FP32)) is Algorithm.RING
    transfer = reduce_among(8, 8 * MB25, wire=wire)
    assert select_algorithm(topology, transfer) is Algorithm.DIRECT
    assert suited(transfer, Algorithm.RING) is Algorithm.DIRECT
    assert bound(topology, transfer) == cost(topology, transfer, Algorithm.DIRECT).seconds


def test_overlapped_halves_save_a_delay_or_half_the_bytes() -> None:
    """Overlapping the halves saves a delay or half the transmission."""
    for rtt in ("10 ms", "200 ms", "2 s"):
        topology, transfer = star(4, "1 Gbit", rtt), reduce_among(4)
        found = cost(topology, transfer, Algorithm.DIRECT)
        saved = bound(topology, transfer) - floor(topology, transfer)
        assert saved == pytest.approx(min(found.latency, found.transmission) / 2)


def test_a_site_costs_the_same_whatever_its_workers() -> None:
    """The workers of a site are one member on the WAN, so a transfer costs what it costs among single workers."""
    document = {
        "name": "pairs",
        "defaults": {"up": "100 Mbit", "down": "100 Mbit", "rtt": "20 ms"},
        "sites": {"a": {"workers": 2}, "b": {"workers": 2}},
    }
    alone = {**document, "sites": {"a": {}, "b": {}}}
    found, expected = (
        cost(topology_from(each, "here"), reduce_among(2, 4000), Algorithm.DIRECT) for each in (document, alone)
    )
    assert found == expected


def test_one_member_or_nothing_to_send_costs_nothing() -> None:
    topology = star(3, "10 Mbit", "100 ms")
    alone = Transfer("t", 100, (1,))
    assert cost(topology, alone, Algorithm.DIRECT).seconds == 0
    assert cost(topology, reduce_among(3, 0), Algorithm.RING).seconds == 0


def test_rooted_collectives_cost_one_delay() -> None:
    topology = star(3, "10 Mbit", "100 ms")
    for collective in (Collective.REDUCE, Collective.GATHER, Collective.BROADCAST):
        found = cost(topology, reduce_among(3, 10_000, collective=collective, root=1))
        assert found.latency == pytest.approx(0.05)
        assert found.transmission == pytest.approx(2 * 40_000 * 8 / goodput(10e6, 1500))


def test_fatter_and_longer_pipes_get_more_streams() -> None:
    counts = [
        streams_per_pair(star(2, rate, rtt), "s0", "s1")
        for rate, rtts in [
            ("10 Mbit", ["200 ms"]),
            ("1 Gbit", ["50 ms", "200 ms"]),
            ("10 Gbit", ["50 ms", "300 ms"]),
            ("100 Gbit", ["300 ms"]),
        ]
        for rtt in rtts
    ]
    assert counts == [1, 1, 1, 3, 15, 16]


def test_loss_is_worth_more_streams() -> None:
    document = {
        "name": "lossy",
        "defaults": {"up": "100 Mbit", "down": "100 Mbit", "rtt": "50 ms", "loss": "0.01 %"},
        "sites": {"a": {}, "b": {}},
    }
    assert 1 < streams_per_pair(topology_from(document, "here"), "a", "b") < 16
