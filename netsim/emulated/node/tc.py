"""From a node's plan to the lines for `ip`, `tc` and `iptables-restore`, and what the kernel must report afterwards.

wan0 out: HTB at the uplink rate with a class per destination; under it a byte-limited queue, or netem.
wan0 in: redirected to an IFB device with HTB at the downlink rate, so that incast at a parameter server is real.
Then, with the nfqueue engine, one queue per source ahead of routing, where the delay daemon gives its verdicts. At the
sender instead, TCP small queues would throttle a stream to a few Mbit/s.
"""

from __future__ import annotations

import re
from typing import Any

from netsim.emulated.node.netem import netem_arguments
from netsim.emulated.plan import NodePlan, Peer
from netsim.framing import ETHERNET, burst

WAN, MGMT, IFB = "wan0", "mgmt0", "ifb-wan"
FIRST = 0x10  # class of the first peer; the same number is its queue's


def minor(index: int) -> int:
    """Class number of the peer at `index`; its NFQUEUE number too."""
    return FIRST + index


def neighbour_lines(plan: NodePlan) -> list[str]:
    """For `ip -batch`: known hardware addresses, so that no ARP is ever shaped, lost or counted as traffic."""
    return [f"neigh replace {peer.address} lladdr {peer.mac} nud permanent dev {WAN}" for peer in plan.peers]


def segments_at_once(plan: NodePlan) -> int:
    """How many segments may travel as one packet: the kernel's most, or one where each must meet a fate of its own."""
    return 1 if plan.segmented else 65535


def segment_lines(plan: NodePlan) -> list[str]:
    """For `ip -batch`."""
    return [f"link set {WAN} gso_max_segs {segments_at_once(plan)}"]


def setup_lines(plan: NodePlan) -> list[str]:
    """For `tc -batch`, on a bare wan0 and IFB."""
    lines = [
        f"qdisc replace dev {WAN} root handle 1: htb default 2",
        f"class add dev {WAN} parent 1: classid 1:1 {_htb(plan.up, plan.up, plan)}",
        f"class add dev {WAN} parent 1:1 classid 1:2 {_htb(max(plan.up / 100, 8e3), plan.up, plan)}",
    ]
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        lines += [
            f"class add dev {WAN} parent 1:1 classid 1:{number} {_htb(peer.share, peer.rate, plan)}",
            f"qdisc add dev {WAN} parent 1:{number} handle {number}: {_leaf(plan, peer)}",
            f"filter add dev {WAN} parent 1: protocol ip prio 1 u32 match ip dst {peer.address}/32 flowid 1:{number}",
        ]
    return [
        *lines,
        f"qdisc add dev {IFB} root handle 1: htb default 1",
        f"class add dev {IFB} parent 1: classid 1:1 {_htb(plan.down, plan.down, plan)}",
        f"qdisc add dev {IFB} parent 1:1 handle 10: bfifo limit {plan.queue_down}",
        f"qdisc add dev {WAN} handle ffff: ingress",
        f"filter add dev {WAN} parent ffff: protocol ip prio 1 u32 match u32 0 0 "
        f"action mirred egress redirect dev {IFB}",
    ]


def change_lines(plan: NodePlan) -> list[str]:
    """For `tc -batch`, on a node already set up: the whole state again, so that no change erases another."""
    lines = [f"class change dev {WAN} parent 1: classid 1:1 {_htb(plan.up, plan.up, plan)}"]
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        lines += [
            f"class change dev {WAN} parent 1:1 classid 1:{number} {_htb(peer.share, peer.rate, plan)}",
            f"qdisc change dev {WAN} parent 1:{number} handle {number}: {_leaf(plan, peer)}",
        ]
    return [
        *lines,
        f"class change dev {IFB} parent 1: classid 1:1 {_htb(plan.down, plan.down, plan)}",
        f"qdisc change dev {IFB} parent 1:1 handle 10: bfifo limit {plan.queue_down}",
    ]


def queue_rules(plan: NodePlan) -> str:
    """For `iptables-restore`. Without --queue-bypass: a queue that nobody reads drops its packets."""
    rules = [
        f"-A PREROUTING -i {WAN} -s {peer.address} -j NFQUEUE --queue-num {minor(index)}"
        for index, peer in enumerate(plan.peers)
    ]
    return "\n".join(["*mangle", ":PREROUTING ACCEPT [0:0]", *rules, "COMMIT", ""])


def expected(plan: NodePlan) -> dict[str, float | str]:
    """What `observed` must return after the set-up: rates per class, and the kind and limit of each leaf."""
    state: dict[str, float | str] = {
        f"{WAN} 1:1": plan.up,
        f"{IFB} 1:1": plan.down,
        f"{IFB} 10:": f"bfifo limit {plan.queue_down}",
        f"{WAN} ingress": "ingress",
    }
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        state[f"{WAN} 1:{number}"] = peer.rate
        state[f"{WAN} {number}:"] = "netem" if plan.engine == "netem" else f"bfifo limit {peer.queue}"
    return state


_CLASS = re.compile(r"class htb (\S+) .*\bceil ([0-9]+)([KMGT]?)bit")
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def observed(classes: list[tuple[str, str]], qdiscs: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The same picture from lines of `tc class show` (which has no JSON for HTB) and entries of `tc -j qdisc show`."""
    state: dict[str, Any] = {}
    for device, line in classes:
        if match := _CLASS.match(line):
            state[f"{device} {match[1]}"] = float(match[2]) * _SCALE[match[3]]
    for device, entry in qdiscs:
        if entry["kind"] == "ingress":
            state[f"{device} ingress"] = "ingress"
        elif entry.get("parent"):
            limit = f" limit {entry['options']['limit']}" if entry["kind"] == "bfifo" else ""
            state[f"{device} {entry['handle']}"] = entry["kind"] + limit
    return state


def differences(plan: NodePlan, state: dict[str, Any]) -> list[str]:
    """Where the kernel's state is not the plan's, in words; tc shows four digits of a rate at least."""
    found = []
    for key, asked in expected(plan).items():
        seen = state.get(key)
        same = seen is not None and (
            abs(float(seen) - asked) <= max(8.0, 1e-3 * asked) if isinstance(asked, float) else seen == asked
        )
        if not same:
            found.append(f"{plan.site} {key}: expected {asked}, found {seen}")
    return found


def _htb(rate: float, ceiling: float, plan: NodePlan) -> str:
    quantum = max(plan.mtu + ETHERNET, 1514)
    return (
        f"htb rate {round(rate)}bit ceil {round(ceiling)}bit burst {burst(rate, plan.mtu, plan.burst_hz)} "
        f"cburst {burst(ceiling, plan.mtu, plan.burst_hz)} quantum {quantum}"
    )


def _leaf(plan: NodePlan, peer: Peer) -> str:
    if plan.engine == "netem":
        return netem_arguments(peer.departure, peer.rate, peer.queue, plan.mtu)
    return f"bfifo limit {peer.queue}"
