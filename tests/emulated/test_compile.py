"""From a topology to what each node must do."""

import json

from netsim.emulated.compile import compile_topology, duplicates_ever
from netsim.emulated.plan import Address, NodePlan
from netsim.simulated.link_model import LinkModel
from netsim.states import states
from netsim.topology import Topology, topology_from
from tests.emulated.networks import PAIR, pair

DOCUMENT = {
    "name": "trio",
    "defaults": {"up": "100 Mbit", "down": "30 Mbit", "delay": "20 ms"},
    "sites": {"a": {}, "b": {}, "c": {"up": "10 Mbit"}},
    "links": [
        {"from": "a", "to": "b", "delay": "10 ms", "rate": "5 Mbit", "loss": "1 %"},
        {"from": "b", "to": "a", "delay": "15 ms"},
    ],
}


def plans(topology: Topology) -> dict[str, NodePlan]:
    sites = [site.name for site in topology.sites]
    addresses = {
        n: Address(f"10.0.0.{i + 1}", f"02:00:00:00:00:{i:02x}", f"10.1.0.{i + 1}", f"02:00:00:00:01:{i:02x}")
        for i, n in enumerate(sites)
    }
    return {plan.site: plan for plan in compile_topology(topology, addresses, "nfqueue", seed=7)}


def test_a_node_delays_what_arrives_and_limits_what_leaves() -> None:
    a = plans(topology_from(DOCUMENT, "here"))["a"]
    b = a.peers[0]
    assert (b.site, b.address, b.rate, b.departure.delay, b.arrival.delay) == ("b", "10.0.0.2", 5e6, 0.010, 0.015)
    assert (b.departure.loss_in_good, b.arrival.loss_in_good) == (0.01, 0.0)
    assert (a.up, a.down) == (100e6, 30e6)


def test_without_a_pair_rate_only_the_uplink_bounds_what_leaves() -> None:
    found = plans(topology_from(DOCUMENT, "here"))
    assert {peer.site: peer.rate for peer in found["c"].peers} == {"a": 10e6, "b": 10e6}
    assert {peer.site: peer.share for peer in found["c"].peers} == {"a": 5e6, "b": 5e6}


def test_per_packet_links_make_their_senders_segment() -> None:
    """Only senders over links that treat packets apart send single frames."""
    found = plans(topology_from(DOCUMENT, "here"))
    assert {name: plan.segmented for name, plan in found.items()} == {"a": True, "b": False, "c": False}


def test_a_severed_link_treats_all_packets_alike() -> None:
    assert not any(plan.segmented for plan in plans(pair(defaults={**PAIR["defaults"], "loss": 1.0})).values())


def test_a_queue_in_milliseconds_follows_the_rate() -> None:
    document = {**DOCUMENT, "defaults": {**DOCUMENT["defaults"], "queue": "80 ms"}}  # type: ignore[dict-item]
    topology = topology_from(document, "here")
    assert topology.queue("a", "c") == 300_000
    assert topology.queue("c", "a") == 100_000


def test_a_downlink_that_is_the_bottleneck_has_the_queue_stated() -> None:
    slow = {"a": {}, "b": {"down": "5 Mbit"}}
    topology = pair(sites=slow, links=[{"from": "a", "to": "b", "queue": "15 kB"}])
    assert plans(topology)["b"].queue_down == 15_000
    in_time = pair(sites=slow, links=[{"from": "a", "to": "b", "queue": "40 ms"}])
    assert plans(in_time)["b"].queue_down == 25_000
    assert plans(pair(sites=slow))["b"].queue_down == 151_400
    # Where the uplink or the pair's own rate is slower, the queue stated is theirs.
    capped = pair(sites=slow, links=[{"from": "a", "to": "b", "rate": "4 Mbit", "queue": "15 kB"}])
    assert plans(capped)["b"].queue_down == 151_400


def test_a_change_of_a_downlink_changes_its_queue() -> None:
    topology = pair(
        sites={"a": {}, "b": {"down": "10 Mbit"}},
        links=[{"from": "a", "to": "b", "queue": "40 ms"}],
        timeline=[{"at": "1 s", "set": {"site": "b", "down": "2 Mbit"}}],
    )
    assert [plans(state)["b"].queue_down for _, state in states(topology)] == [50_000, 10_000]


def test_every_link_derives_a_seed_of_its_own() -> None:
    """Every link has a seed of its own that follows from the networks."""
    a = plans(topology_from(DOCUMENT, "here"))["a"]
    assert [peer.departure.seed for peer in a.peers] == ["7:a:b", "7:a:c"]
    assert [peer.arrival.seed for peer in a.peers] == ["7:b:a", "7:c:a"]


def test_a_plan_survives_its_journey_as_json() -> None:
    plan = plans(topology_from(DOCUMENT, "here"))["a"]
    assert NodePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_duplication_in_the_timeline_alone_is_foreseen() -> None:
    """Duplication is foreseen when only the timeline brings it."""
    later = [{"at": "5 s", "set": {"between": ["a", "b"], "duplicate": "1 %"}}]
    assert duplicates_ever(pair(timeline=later))
    assert not duplicates_ever(pair())


def test_a_first_window_is_the_kernels_own_unless_stated() -> None:
    """A larger one is granted by receivers only where their buffers begin as large."""
    usual, tuned = pair(), pair(transport={"congestion_control": "reno", "initial_window": 1000})
    assert plans(usual)["a"].initial_window is None
    assert plans(usual)["a"].sysctls["net.ipv4.tcp_rmem"] == "4096 131072 64000000"
    assert plans(tuned)["a"].initial_window == 1000
    assert plans(tuned)["a"].sysctls["net.ipv4.tcp_rmem"] == "4096 6000000 64000000"
    assert (
        LinkModel().initial_window(tuned, "a", "b") == 1000 * 1448 == 100 * LinkModel().initial_window(usual, "a", "b")
    )
