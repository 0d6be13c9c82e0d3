"""Kinds of queues: as they are written, compiled, set up by tc, read back, and refused."""

import json
from typing import Any

import pytest

from netsim.emulated.compile import marks_ever
from netsim.emulated.node.queues import queue_arguments, queue_expected
from netsim.emulated.node.tc import change_lines, differences, expected, observed, setup_lines
from netsim.emulated.plan import NodePlan, QueueControl
from netsim.emulated.substrates.capabilities import ENABLES, Capability
from netsim.emulated.substrates.choice import require_queues
from netsim.errors import HostError, InputError
from netsim.states import changed
from netsim.topology import Topology
from tests.emulated.networks import PAIR, pair
from tests.emulated.test_compile import plans

CODEL = {"kind": "fq_codel", "size": "40 ms", "target": "3 ms", "ecn": True}
RED = {"kind": "red", "size": "120 kB"}


def managed(queue: dict[str, Any], **changes: Any) -> Topology:
    return pair(defaults={**PAIR["defaults"], "queue": queue}, **changes)


def test_a_queue_of_a_kind_is_on_both_ends_of_a_link() -> None:
    a = plans(managed(CODEL))["a"]
    control = QueueControl("fq_codel", True, 0.003, 0.1)
    assert a.peers[0].control == a.control_down == control
    assert a.peers[0].queue == 200_000
    assert a.segmented
    assert a.sysctls["net.ipv4.tcp_ecn"] == "1"
    assert "net.ipv4.tcp_ecn" not in plans(managed(RED))["a"].sysctls
    assert NodePlan.from_json(json.loads(json.dumps(a.to_json()))) == a


def test_tc_is_told_everything_about_a_queue() -> None:
    fq_codel = "fq_codel limit 132 target 3000us interval 100000us quantum 1514 memory_limit 33554432 ecn"
    lines = setup_lines(plans(managed(CODEL))["a"])
    assert f"qdisc add dev wan0 parent 1:10 handle 10: {fq_codel}" in lines
    assert f"qdisc change dev wan0 parent 1:10 handle 10: {fq_codel}" in change_lines(plans(managed(CODEL))["a"])
    red = "red limit 120000 min 10000 max 30000 avpkt 1514 burst 11 probability 0.02 bandwidth 40000000bit"
    assert f"qdisc add dev wan0 parent 1:10 handle 10: {red}" in setup_lines(plans(managed(RED))["a"])


def test_a_queue_without_a_kind_is_what_it_was() -> None:
    assert queue_arguments(150_000, None, 8e6, 1500) == queue_expected(150_000, None, 1500) == "bfifo limit 150000"
    droptail = plans(managed({"kind": "droptail", "size": "150 kB"}))["a"]
    assert droptail == plans(pair(defaults={**PAIR["defaults"], "queue": "150 kB"}))["a"]


@pytest.mark.parametrize(
    ("queue", "options", "wrong"),
    [
        (CODEL, {"limit": 132, "target": 2999, "interval": 99999, "ecn": True}, {"target": 4999}),
        (RED, {"limit": 120000, "min": 10000, "max": 30000, "ecn": False}, {"ecn": True}),
    ],
)
def test_what_the_kernel_says_of_a_queue_is_compared(
    queue: dict[str, Any], options: dict[str, Any], wrong: dict[str, Any]
) -> None:
    plan = plans(managed(queue))["a"]

    def found(said: dict[str, Any]) -> list[str]:
        entry = {"kind": queue["kind"], "handle": "10:", "parent": "1:10", "options": said}
        state = observed([], [("wan0", entry)])
        return differences(plan, state, {"wan0 10:": expected(plan)["wan0 10:"]})

    assert found(options) == []
    assert len(found({**options, **wrong})) == 1


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        ({"kind": "cake"}, "kind: found 'cake'; allowed: 'droptail', 'fq_codel' or 'red'"),
        ({"kind": "red", "target": "5 ms"}, "options of red: max, min, probability; target is of another kind"),
        ({"kind": "droptail", "ecn": True}, "droptail marks nothing"),
        ({"kind": "red", "size": "20 kB", "max": "30 kB"}, "max at most the size; here min is 10000 B"),
        ({"kind": "fq_codel", "size": "1 kB"}, "at least two full frames"),
        ({"size": "10 kB"}, "kind: found nothing"),
        ({"kind": "fq_codel", "limit": "10 kB"}, "found the key 'limit'"),
        ("soon", "a size like '150 kB', or a duration"),
    ],
)
def test_a_wrong_queue_is_one_error(queue: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        managed(queue)


def test_links_to_a_site_share_one_kind_of_queue() -> None:
    sites: dict[str, Any] = {"a": {}, "b": {}, "c": {}}
    links = [{"from": "a", "to": "c", "queue": CODEL}, {"from": "b", "to": "c", "queue": RED}]
    with pytest.raises(InputError, match="one kind with the same options for all links to c"):
        pair(sites=sites, links=links)
    pair(sites=sites, links=[links[0], {**links[1], "queue": {**CODEL, "size": "9 kB"}}])


def test_a_running_queue_keeps_its_kind() -> None:
    topology = managed(CODEL)
    with pytest.raises(InputError, match=r"found 'droptail'; allowed: queue: \{kind: fq_codel"):
        changed(topology, [{"between": ["a", "b"], "queue": "50 kB"}], "change")
    change = {"between": ["a", "b"], "queue": {**CODEL, "target": "9 ms"}}
    control = plans(changed(topology, [change], "change"))["a"].peers[0].control
    assert control is not None
    assert control.target == pytest.approx(0.009)
    with pytest.raises(InputError, match=r"timeline.0.set.queue: found 'red'"):
        pair(timeline=[{"at": "1 s", "set": {"between": ["a", "b"], "queue": RED}}])


def test_marks_that_come_later_are_asked_for_from_the_start() -> None:
    later = [{"at": "1 s", "set": {"between": ["a", "b"], "queue": {**RED, "ecn": True}}}]
    assert marks_ever(managed(RED, timeline=later))
    assert not marks_ever(managed(RED))


def test_a_kernel_without_a_kind_is_one_error() -> None:
    able = {name: Capability(name, name != "red", "qdisc kind is unknown") for name in ENABLES}
    require_queues(managed(CODEL), able)
    with pytest.raises(
        HostError, match="no red .module sch_red., which the queue of links a -> b asks for: qdisc kind"
    ):
        require_queues(managed(RED), able)
