"""From a node's plan to the lines for `ip`, `tc` and `iptables-restore`, and what the kernel must report afterwards.

Both engines queue where the bottlenecks are, in bytes, and delay behind them, where nothing queues:

wan0 out: HTB at the uplink rate with a class and a byte-limited queue per destination.
wan0 in: HTB at the downlink rate with one byte-limited queue, so that incast at a parameter server is real. It is on a
device to which arriving packets are redirected: an IFB with nfqueue, one end of a veth pair with netem.
nfqueue: from there back to wan0, and one queue per source ahead of routing, where the delay daemon gives its verdicts.
netem: out of the other end of the pair to an IFB with a class and a netem per source, and from there to routing.
Delaying at the sender instead, TCP small queues would throttle a stream to a few Mbit/s, or not hold it back at all.
"""

from __future__ import annotations

import math
import re
from typing import Any

from netsim.emulated.node.netem import netem_arguments, netem_expected, netem_state
from netsim.emulated.node.queues import queue_arguments, queue_expected, queue_state
from netsim.emulated.plan import NodePlan, Peer
from netsim.framing import ETHERNET, burst

WAN, MGMT, IFB = "wan0", "mgmt0", "ifb-wan"
DOWN, ARRIVED = "down-wan", "arrived-wan"  # the veth pair of the netem engine
_UNLIMITED = 100_000_000_000  # bit/s, of the classes that only sort packets
FIRST = 0x10  # class of the first peer; the same number is its queue's


def minor(index: int) -> int:
    """Class number of the peer at `index`; its NFQUEUE number too."""
    return FIRST + index


def neighbour_lines(plan: NodePlan) -> list[str]:
    """For `ip -batch`: known hardware addresses, so that no ARP is ever shaped, lost or counted as traffic.

    Those of the management network too: all namespaces of a host share one table of 1,024 addresses that were asked for
    (`gc_thresh3`), and the pairs of 33 nodes are more. Addresses that were stated do not count.
    """
    known = [(WAN, peer.address, peer.mac) for peer in plan.peers]
    known += [(MGMT, address, mac) for address, mac in plan.mgmt_neighbours.items()]
    return [f"neigh replace {address} lladdr {mac} nud permanent dev {device}" for device, address, mac in known]


def segments_at_once(plan: NodePlan) -> int:
    """How many segments may travel as one packet: the kernel's most, or one where each must meet a fate of its own."""
    return 1 if plan.segmented else 65535


def segment_lines(plan: NodePlan) -> list[str]:
    """For `ip -batch`."""
    return [f"link set {WAN} gso_max_segs {segments_at_once(plan)}"]


def downlink(plan: NodePlan) -> str:
    """The device that carries the downlink's rate and queue."""
    return DOWN if plan.engine == "netem" else IFB


def device_lines(plan: NodePlan, own_mac: str) -> list[str]:
    """For `ip -batch`: the devices behind wan0. own_mac: of wan0, so that what arrives counts as for this node."""
    lines = [f"link add name {IFB} type ifb", f"link set {IFB} mtu {plan.mtu} up"]
    if plan.engine == "netem":
        lines += [
            f"link add name {DOWN} mtu {plan.mtu} type veth peer name {ARRIVED} mtu {plan.mtu} address {own_mac}",
            f"link set {DOWN} up",
            f"link set {ARRIVED} up",
        ]
    return lines


def setup_lines(plan: NodePlan, *, seeded: bool = False) -> list[str]:
    """For `tc -batch`, on bare devices. seeded: whether netem takes a seed here."""
    down = downlink(plan)
    lines = [
        f"qdisc replace dev {WAN} root handle 1: htb default 2",
        f"class add dev {WAN} parent 1: classid 1:1 {htb(plan.up, plan.up, plan)}",
        f"class add dev {WAN} parent 1:1 classid 1:2 {htb(max(plan.up / 100, 8e3), plan.up, plan)}",
    ]
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        lines += [
            f"class add dev {WAN} parent 1:1 classid 1:{number} {htb(peer.share, peer.rate, plan)}",
            f"qdisc add dev {WAN} parent 1:{number} handle {number}: {_queue(peer, plan)}",
            f"filter add dev {WAN} parent 1: protocol ip prio 1 u32 match ip dst {peer.address}/32 flowid 1:{number}",
        ]
    lines += [
        f"qdisc add dev {down} root handle 1: htb default 1",
        f"class add dev {down} parent 1: classid 1:1 {htb(plan.down, plan.down, plan)}",
        f"qdisc add dev {down} parent 1:1 handle 10: {_queue_down(plan)}",
        *_redirect(WAN, down),
    ]
    return lines + _delay_lines(plan, seeded) if plan.engine == "netem" else lines


def _queue(peer: Peer, plan: NodePlan) -> str:
    return queue_arguments(peer.queue, peer.control, peer.rate, plan.mtu)


def _queue_down(plan: NodePlan) -> str:
    return queue_arguments(plan.queue_down, plan.control_down, plan.down, plan.mtu)


def _redirect(source: str, target: str) -> list[str]:
    """What arrives at `source` is sent out of `target` instead."""
    return [
        f"qdisc add dev {source} handle ffff: ingress",
        f"filter add dev {source} parent ffff: protocol ip prio 1 u32 match u32 0 0 "
        f"action mirred egress redirect dev {target}",
    ]


def _delay_lines(plan: NodePlan, seeded: bool) -> list[str]:
    """netem per source, behind the downlink."""
    lines = [f"qdisc add dev {IFB} root handle 1: htb"]
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        arguments = netem_arguments(peer.arrival, plan.down, seeded=seeded)
        lines += [
            f"class add dev {IFB} parent 1: classid 1:{number} {htb(_UNLIMITED, _UNLIMITED, plan)}",
            f"qdisc add dev {IFB} parent 1:{number} handle {number}: {arguments}",
            f"filter add dev {IFB} parent 1: protocol ip prio 1 u32 match ip src {peer.address}/32 flowid 1:{number}",
        ]
    return lines + _redirect(ARRIVED, IFB)


def change_lines(plan: NodePlan, *, seeded: bool = False) -> list[str]:
    """For `tc -batch`, on a node already set up: the whole state again, so that no change erases another."""
    down = downlink(plan)
    lines = [f"class change dev {WAN} parent 1: classid 1:1 {htb(plan.up, plan.up, plan)}"]
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        lines += [
            f"class change dev {WAN} parent 1:1 classid 1:{number} {htb(peer.share, peer.rate, plan)}",
            f"qdisc change dev {WAN} parent 1:{number} handle {number}: {_queue(peer, plan)}",
        ]
        if plan.engine == "netem":
            arguments = netem_arguments(peer.arrival, plan.down, seeded=seeded)
            lines.append(f"qdisc change dev {IFB} parent 1:{number} handle {number}: {arguments}")
    return [
        *lines,
        f"class change dev {down} parent 1: classid 1:1 {htb(plan.down, plan.down, plan)}",
        f"qdisc change dev {down} parent 1:1 handle 10: {_queue_down(plan)}",
    ]


def queue_rules(plan: NodePlan) -> str:
    """For `iptables-restore`. Without --queue-bypass: a queue that nobody reads drops its packets."""
    rules = [
        f"-A PREROUTING -i {WAN} -s {peer.address} -j NFQUEUE --queue-num {minor(index)}"
        for index, peer in enumerate(plan.peers)
    ]
    return "\n".join(["*mangle", ":PREROUTING ACCEPT [0:0]", *rules, "COMMIT", ""])


State = dict[str, float | str | dict[str, float]]


def expected(plan: NodePlan) -> State:
    """What `observed` must return after the set-up: rates per class, limits of queues, and all that netem does."""
    down = downlink(plan)
    state: State = {
        f"{WAN} 1:1": plan.up,
        f"{down} 1:1": plan.down,
        f"{down} 10:": queue_expected(plan.queue_down, plan.control_down, plan.mtu),
        f"{WAN} ingress": "ingress",
    }
    for index, peer in enumerate(plan.peers):
        number = f"{minor(index):x}"
        state[f"{WAN} 1:{number}"] = peer.rate
        state[f"{WAN} {number}:"] = queue_expected(peer.queue, peer.control, plan.mtu)
        if plan.engine == "netem":
            state[f"{IFB} {number}:"] = netem_expected(peer.arrival, plan.down)
    if plan.engine == "netem":
        state[f"{ARRIVED} ingress"] = "ingress"
    return state


_CLASS = re.compile(r"class htb (\S+) .*\bceil ([0-9]+)([KMGT]?)bit")
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def observed(classes: list[tuple[str, str]], qdiscs: list[tuple[str, dict[str, Any]]]) -> State:
    """The same picture from lines of `tc class show` (which has no JSON for HTB) and entries of `tc -j qdisc show`."""
    state: State = {}
    for device, line in classes:
        if match := _CLASS.match(line):
            state[f"{device} {match[1]}"] = float(match[2]) * _SCALE[match[3]]
    for device, entry in qdiscs:
        if entry["kind"] == "ingress":
            state[f"{device} ingress"] = "ingress"
        elif entry["kind"] == "netem":
            state[f"{device} {entry['handle']}"] = netem_state(entry)
        elif entry.get("parent"):
            state[f"{device} {entry['handle']}"] = queue_state(entry)
    return state


def differences(plan: NodePlan, state: State, asked: State | None = None) -> list[str]:
    """Where the kernel's state is not the plan's, in words. asked: instead of `expected(plan)`."""
    return [
        f"{plan.site} {key}: expected {wanted}, found {state.get(key)}"
        for key, wanted in (expected(plan) if asked is None else asked).items()
        if not _same(wanted, state.get(key))
    ]


def _same(wanted: float | str | dict[str, float], seen: float | str | dict[str, float] | None) -> bool:
    """tc shows four digits of a rate at least, microseconds of a delay, and shares as 32-bit fractions."""
    if isinstance(wanted, dict) and isinstance(seen, dict):
        return all(abs(seen.get(name, math.nan) - value) <= max(2e-6, 1e-3 * value) for name, value in wanted.items())
    if isinstance(wanted, float) and isinstance(seen, float):
        return abs(seen - wanted) <= max(8.0, 1e-3 * wanted)
    return wanted == seen


def htb(rate: float, ceiling: float, plan: NodePlan) -> str:
    """The class at these rates, bit/s, whose buckets hold what passes between two ticks of the kernel."""
    quantum = max(plan.mtu + ETHERNET, 1514)
    return (
        f"htb rate {round(rate)}bit ceil {round(ceiling)}bit burst {burst(rate, plan.mtu, plan.burst_hz)} "
        f"cburst {burst(ceiling, plan.mtu, plan.burst_hz)} quantum {quantum}"
    )
