"""Links that several pairs share: as written, as planned for nodes, as simulated."""

import json
from typing import Any

import pytest

from netsim.collectives import cost
from netsim.emulated.compile import CORE_NODE, compile_topology, node_names
from netsim.emulated.node.core_tc import core_expected, core_setup_lines
from netsim.emulated.plan import Address, NodePlan
from netsim.emulated.probe_plan import disjoint_rounds
from netsim.errors import InputError
from netsim.framing import goodput
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.topology import Topology, subset_document, topology_from
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer

MIDDLE = {"name": "middle", "between": [["a", "b"], ["c", "d"]], "rate": "10 Mbit", "queue": "50 ms"}
DUMBBELL: dict[str, Any] = {
    "name": "dumbbell",
    "defaults": {"up": "50 Mbit", "down": "50 Mbit", "delay": "10 ms"},
    "sites": {"a": {}, "b": {}, "c": {}, "d": {}},
    "core": [MIDDLE],
}


def dumbbell(**changes: Any) -> Topology:
    return topology_from({**DUMBBELL, **changes}, "test")


def plans(topology: Topology) -> dict[str, NodePlan]:
    addresses = {
        name: Address(
            f"10.0.0.{index + 1}", f"02:00:00:00:00:{index:02x}", f"10.1.0.{index + 1}", f"02:00:00:00:01:{index:02x}"
        )
        for index, name in enumerate(node_names(topology))
    }
    return {plan.site: plan for plan in compile_topology(topology, addresses, "nfqueue", seed=7)}


def test_either_direction_of_a_core_link_is_shared() -> None:
    topology = dumbbell()
    there, back = topology.core
    assert there.pairs == (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))
    assert back.pairs == (("c", "a"), ("c", "b"), ("d", "a"), ("d", "b"))
    assert topology.core_of("a", "d") == (there,)
    assert topology.core_of("a", "b") == ()
    assert (topology.rate("a", "c"), topology.rate("a", "b")) == (10e6, 50e6)
    assert topology.core_queue(there) == 62_500
    assert topology.scaled(rates=2).core[0].rate == 20e6


def test_a_document_keeps_the_core_among_its_sites() -> None:
    assert subset_document(DUMBBELL, ["a", "b", "c"])["core"] == [{**MIDDLE, "between": [["a", "b"], ["c"]]}]
    assert subset_document(DUMBBELL, ["a", "b"])["core"] == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"between": [["a"], ["e"]]}, "'e'"),
        ({"between": [["a"], ["a", "b"]]}, "pairs of different sites"),
        ({"rate": "0 bit"}, "rate"),
        ({"queue": "100 B"}, "two full frames"),
        ({"pairs": [["a", "b"]]}, "one of between"),
    ],
)
def test_a_wrong_core_link_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        dumbbell(core=[{**MIDDLE, **change}])


def test_pairs_of_a_core_link_send_through_its_node() -> None:
    found = plans(dumbbell())
    core = found[CORE_NODE]
    assert NodePlan.from_json(json.loads(json.dumps(core.to_json()))) == core
    macs = {peer.site: peer.mac for peer in found["a"].peers}
    assert macs == {"b": "02:00:00:00:00:01", "c": "02:00:00:00:00:04", "d": "02:00:00:00:00:04"}
    assert {peer.site: peer.mac for peer in core.peers}["c"] == "02:00:00:00:00:02"
    assert found["a"].core == ()


def test_a_pair_passes_its_core_links_one_after_the_other() -> None:
    topology = dumbbell(core=[MIDDLE, {"name": "last", "from": ["a", "b"], "to": ["d"], "rate": "5 Mbit"}])
    core = plans(topology)[CORE_NODE]
    filters = [line for line in core_setup_lines(core) if "src 10.0.0.1/32" in line and "dst 10.0.0.4/32" in line]
    assert [(line.split()[3], line.split()[-1]) for line in filters] == [("wan0", "core0"), ("past0", "core2")]
    state = core_expected(core)
    assert (state["core0 1:1"], state["core2 1:1"]) == (10e6, 5e6)
    assert topology.rate("a", "d") == 5e6


def test_probes_of_one_core_link_follow_one_another() -> None:
    topology = dumbbell()
    rounds = disjoint_rounds(
        [("a", "c"), ("b", "d")], both_ways=True, core=lambda pair: [link.name for link in topology.core_of(*pair)]
    )
    assert rounds == [[("a", "c")], [("b", "d")]]


def test_pairs_share_the_rate_of_a_core_link() -> None:
    """Two pairs at once take twice as long as one; without the core link, no longer."""

    def seconds(topology: Topology, *pairs: tuple[int, int]) -> float:
        sends = tuple(
            Transfer(f"{a}", 250_000, (min(a, b), max(a, b)), collective=Collective.SEND, root=a) for a, b in pairs
        )
        return simulate(Plan(4, 1, (Recurrence(sends, 1, 1, 1),)), topology, Compute((1.0,) * 4)).wall_seconds - 1

    alone = 1e6 * 8 / goodput(10e6, 1500)
    assert seconds(dumbbell(), (0, 2)) == pytest.approx(alone, rel=0.02)
    assert seconds(dumbbell(), (0, 2), (1, 3)) == pytest.approx(2 * alone, rel=0.02)
    assert seconds(dumbbell(), (0, 2), (3, 1)) == pytest.approx(alone, rel=0.02)
    assert seconds(dumbbell(core=[]), (0, 2), (1, 3)) == pytest.approx(alone / 5, rel=0.1)


def test_the_bound_of_a_collective_counts_the_core() -> None:
    """A direct all-reduce of 4 MB: each site sends 1 MB to each other one twice, so 8 MB cross the middle each way."""
    transfer = Transfer("x", 10**6, (0, 1, 2, 3))
    found = cost(dumbbell(), transfer, Algorithm.DIRECT)
    assert found.transmission == pytest.approx(8e6 * 8 / goodput(10e6, 1500))
