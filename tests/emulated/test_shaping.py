"""The lines for ip, tc and iptables, and reading back what the kernel holds."""

from dataclasses import replace
from typing import Any

from netsim.emulated.node.netem import netem_limit
from netsim.emulated.node.tc import (
    change_lines,
    differences,
    neighbour_lines,
    observed,
    queue_rules,
    setup_lines,
)
from netsim.emulated.plan import Impairment, NodePlan, Peer

PEER = Peer("b", "10.0.0.2", "02:00:00:00:00:01", 8e6, 8e6, 151_400, Impairment(0.01), Impairment(0.02))
PLAN = NodePlan(
    site="a",
    address="10.0.0.1",
    prefix=16,
    mgmt_address="10.1.0.1",
    mgmt_prefix=16,
    engine="nfqueue",
    mtu=1500,
    up=8e6,
    down=1e9,
    queue_down=625_000,
    burst_hz=250,
    segmented=False,
    peers=(PEER,),
)
REST = "cburst 4000 quantum 1514"


def test_uplinks_have_a_class_per_peer_and_downlinks_one() -> None:
    """A node limits what leaves per destination and what arrives in all."""
    assert setup_lines(PLAN) == [
        "qdisc replace dev wan0 root handle 1: htb default 2",
        f"class add dev wan0 parent 1: classid 1:1 htb rate 8000000bit ceil 8000000bit burst 4000 {REST}",
        f"class add dev wan0 parent 1:1 classid 1:2 htb rate 80000bit ceil 8000000bit burst 3028 {REST}",
        f"class add dev wan0 parent 1:1 classid 1:10 htb rate 8000000bit ceil 8000000bit burst 4000 {REST}",
        "qdisc add dev wan0 parent 1:10 handle 10: bfifo limit 151400",
        "filter add dev wan0 parent 1: protocol ip prio 1 u32 match ip dst 10.0.0.2/32 flowid 1:10",
        "qdisc add dev ifb-wan root handle 1: htb default 1",
        "class add dev ifb-wan parent 1: classid 1:1 "
        "htb rate 1000000000bit ceil 1000000000bit burst 500000 cburst 500000 quantum 1514",
        "qdisc add dev ifb-wan parent 1:1 handle 10: bfifo limit 625000",
        "qdisc add dev wan0 handle ffff: ingress",
        "filter add dev wan0 parent ffff: protocol ip prio 1 u32 match u32 0 0 "
        "action mirred egress redirect dev ifb-wan",
    ]


def test_rates_are_in_bits_whatever_their_size() -> None:
    """tc reads `Gbps` as gigabytes per second."""
    fast = replace(PLAN, up=40e9, peers=(replace(PEER, rate=40e9),))
    assert any("ceil 40000000000bit" in line for line in setup_lines(fast))
    assert not any("bps" in line for line in setup_lines(fast))


def test_a_change_states_everything_again() -> None:
    assert change_lines(PLAN) == [
        f"class change dev wan0 parent 1: classid 1:1 htb rate 8000000bit ceil 8000000bit burst 4000 {REST}",
        f"class change dev wan0 parent 1:1 classid 1:10 htb rate 8000000bit ceil 8000000bit burst 4000 {REST}",
        "qdisc change dev wan0 parent 1:10 handle 10: bfifo limit 151400",
        "class change dev ifb-wan parent 1: classid 1:1 "
        "htb rate 1000000000bit ceil 1000000000bit burst 500000 cburst 500000 quantum 1514",
        "qdisc change dev ifb-wan parent 1:1 handle 10: bfifo limit 625000",
    ]


def test_a_queue_that_nobody_reads_drops_its_packets() -> None:
    """Packets wait in a queue per source which drops when nobody reads."""
    assert "-A PREROUTING -i wan0 -s 10.0.0.2 -j NFQUEUE --queue-num 16" in queue_rules(PLAN)
    assert "bypass" not in queue_rules(PLAN)


def test_hardware_addresses_are_known_beforehand() -> None:
    plan = replace(PLAN, mgmt_neighbours={"10.1.0.2": "02:00:00:00:01:01"})
    assert neighbour_lines(plan) == [
        "neigh replace 10.0.0.2 lladdr 02:00:00:00:00:01 nud permanent dev wan0",
        "neigh replace 10.1.0.2 lladdr 02:00:00:00:01:01 nud permanent dev mgmt0",
    ]


CLASSES = [
    ("wan0", "class htb 1:10 parent 1:1 leaf 10: prio 0 rate 8Mbit ceil 8Mbit burst 4000b cburst 4000b "),
    ("wan0", "class htb 1:1 root rate 8Mbit ceil 8Mbit burst 4000b cburst 4000b "),
    ("ifb-wan", "class htb 1:1 root leaf 10: prio 0 rate 1Gbit ceil 1Gbit burst 500000b cburst 500000b "),
]
QDISCS: list[tuple[str, dict[str, Any]]] = [
    ("wan0", {"kind": "htb", "handle": "1:", "root": True}),
    ("wan0", {"kind": "bfifo", "handle": "10:", "parent": "1:10", "options": {"limit": 151400}}),
    ("wan0", {"kind": "ingress", "handle": "ffff:", "parent": "ffff:fff1"}),
    ("ifb-wan", {"kind": "bfifo", "handle": "10:", "parent": "1:1", "options": {"limit": 625000}}),
]


def test_what_the_kernel_reports_is_compared_with_the_plan() -> None:
    assert differences(PLAN, observed(CLASSES, QDISCS)) == []


def test_every_difference_in_shaping_is_named() -> None:
    """A class that is gone a rate that changed and a missing queue are named."""
    assert differences(PLAN, observed(CLASSES[1:], QDISCS)) == ["a wan0 1:10: expected 8000000.0, found None"]
    slower = [("wan0", CLASSES[0][1].replace("ceil 8Mbit", "ceil 7Mbit")), *CLASSES[1:]]
    assert differences(PLAN, observed(slower, QDISCS)) == ["a wan0 1:10: expected 8000000.0, found 7000000.0"]
    assert differences(PLAN, observed(CLASSES, [*QDISCS[:2], QDISCS[3]])) == [
        "a wan0 ingress: expected ingress, found None"
    ]


def test_a_queue_that_is_not_as_long_as_planned_is_named() -> None:
    longer = [*QDISCS[:3], ("ifb-wan", {**QDISCS[3][1], "options": {"limit": 152_000}})]
    assert differences(PLAN, observed(CLASSES, longer)) == [
        "a ifb-wan 10:: expected bfifo limit 625000, found bfifo limit 152000"
    ]


NETEM = replace(PLAN, engine="netem")


def test_netem_delays_behind_the_downlink_where_nothing_queues() -> None:
    lines = setup_lines(NETEM)
    assert "qdisc add dev wan0 parent 1:10 handle 10: bfifo limit 151400" in lines
    assert "qdisc add dev down-wan parent 1:1 handle 10: bfifo limit 625000" in lines
    assert any(line.endswith("mirred egress redirect dev down-wan") and "dev wan0" in line for line in lines)
    assert any(line.endswith("mirred egress redirect dev ifb-wan") and "dev arrived-wan" in line for line in lines)
    (netem,) = [line for line in lines if "netem" in line]
    assert netem.startswith("qdisc add dev ifb-wan parent 1:10 handle 10: netem limit")
    assert netem.endswith("delay 20000us")


def test_delay_loss_and_limit_of_netem_are_read_back() -> None:
    options = {"limit": int(netem_limit(PEER.arrival, PLAN.down)), "delay": {"delay": 0.02, "jitter": 0}}
    qdiscs = [
        *[("down-wan" if device == "ifb-wan" else device, entry) for device, entry in QDISCS],
        ("arrived-wan", {"kind": "ingress", "handle": "ffff:"}),
        ("ifb-wan", {"kind": "netem", "handle": "10:", "parent": "1:10", "options": options}),
    ]
    classes = [(device.replace("ifb-wan", "down-wan"), line) for device, line in CLASSES]
    assert differences(NETEM, observed(classes, qdiscs)) == []
    for changed in ({"limit": 1000}, {"delay": {"delay": 0.03}}, {"loss-random": {"loss": 0.01}}):
        wrong = [*qdiscs[:-1], ("ifb-wan", {**qdiscs[-1][1], "options": {**options, **changed}})]
        (found,) = differences(NETEM, observed(classes, wrong))
        assert found.startswith("a ifb-wan 10:: expected")
