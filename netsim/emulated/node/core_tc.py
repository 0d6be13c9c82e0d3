"""Lines for `ip` and `tc` of the node that carries a WAN's shared core links, and what the kernel must report of them.

Packets of the pairs that cross one are addressed to this node, which forwards them. On arrival they are redirected into
a veth pair for their first core link, with HTB at its rate and a byte-limited queue; at its other end they go into the
pair of the next one, or on to routing, which sends them to their site. Their delay follows at the receiver.
"""

from __future__ import annotations

from itertools import pairwise

from netsim.emulated.node.queues import queue_arguments, queue_expected
from netsim.emulated.node.tc import WAN, State, htb
from netsim.emulated.plan import CoreStage, NodePlan


def entrance(stage: int) -> str:
    """The device whose queue is that of core link number `stage`."""
    return f"core{stage}"


def is_entrance(device: str) -> bool:
    """Whether it is a device that `entrance` names. Deleting it deletes its other end."""
    return device.startswith("core") and device[4:].isdigit()


def leaving(stage: int) -> str:
    """Where packets are when they have passed it."""
    return f"past{stage}"


def core_devices(plan: NodePlan) -> list[str]:
    """All devices that are shaped or redirect."""
    stages = range(len(plan.core))
    return [WAN, *(device(stage) for stage in stages for device in (entrance, leaving))]


def core_device_lines(plan: NodePlan, own_mac: str) -> list[str]:
    """For `ip -batch`. own_mac: of wan0, so that what passes a core link counts as for this node and is routed."""
    lines = []
    for stage in range(len(plan.core)):
        lines += [
            f"link add name {entrance(stage)} mtu {plan.mtu} type veth "
            f"peer name {leaving(stage)} mtu {plan.mtu} address {own_mac}",
            f"link set {entrance(stage)} up",
            f"link set {leaving(stage)} up",
        ]
    return lines


def core_setup_lines(plan: NodePlan) -> list[str]:
    """For `tc -batch`, on bare devices."""
    lines = []
    for index, stage in enumerate(plan.core):
        device = entrance(index)
        lines += [
            f"qdisc add dev {device} root handle 1: htb default 1",
            f"class add dev {device} parent 1: classid 1:1 {htb(stage.rate, stage.rate, plan)}",
            f"qdisc add dev {device} parent 1:1 handle 10: {_queue(stage, plan)}",
        ]
    lines += [f"qdisc add dev {source} handle ffff: ingress" for source in dict.fromkeys(s for s, _, _ in _hops(plan))]
    lines += [
        f"filter add dev {source} parent ffff: protocol ip prio 1 u32 match ip src {pair[0]}/32 "
        f"match ip dst {pair[1]}/32 action mirred egress redirect dev {target}"
        for source, target, pair in _hops(plan)
    ]
    return lines


def core_change_lines(plan: NodePlan) -> list[str]:
    """For `tc -batch`, on a node already set up. The pairs stay the same."""
    lines = []
    for index, stage in enumerate(plan.core):
        device = entrance(index)
        lines += [
            f"class change dev {device} parent 1: classid 1:1 {htb(stage.rate, stage.rate, plan)}",
            f"qdisc change dev {device} parent 1:1 handle 10: {_queue(stage, plan)}",
        ]
    return lines


def _queue(stage: CoreStage, plan: NodePlan) -> str:
    return queue_arguments(stage.queue, stage.control, stage.rate, plan.mtu)


def core_expected(plan: NodePlan) -> State:
    """What `tc.observed` must return after the set-up."""
    state: State = {f"{source} ingress": "ingress" for source, _, _ in _hops(plan)}
    for index, stage in enumerate(plan.core):
        state[f"{entrance(index)} 1:1"] = stage.rate
        state[f"{entrance(index)} 10:"] = queue_expected(stage.queue, stage.control, plan.mtu)
    return state


def _hops(plan: NodePlan) -> list[tuple[str, str, tuple[str, str]]]:
    """(from device, to device, pair): every pair passes its core links in their order."""
    numbered = list(enumerate(plan.core))
    pairs = dict.fromkeys(pair for stage in plan.core for pair in stage.pairs)
    found = []
    for pair in pairs:
        crossed = [index for index, stage in numbered if pair in stage.pairs]
        found.append((WAN, entrance(crossed[0]), pair))
        found += [(leaving(a), entrance(b), pair) for a, b in pairwise(crossed)]
    return found
