"""From a topology to the plan of each node: a pure function, so that what a node does can be read before it is done."""

from __future__ import annotations

from collections.abc import Mapping

from netsim.emulated.plan import Address, Impairment, NodePlan, Peer
from netsim.framing import queue_limit
from netsim.topology import GilbertElliott, Link, Topology, Transport

BURST_HZ = 250  # the slowest tick in common use, so that the bucket is large enough on every kernel


def compile_topology(
    topology: Topology, addresses: Mapping[str, Address], engine: str, seed: int, *, duplicates: bool = False
) -> list[NodePlan]:
    """One plan per site, in the topology's order. duplicates: whether any link does, now or later."""
    return [_node(topology, site.name, addresses, engine, seed, duplicates) for site in topology.sites]


def duplicates_ever(topology: Topology) -> bool:
    """Whether any link duplicates packets, at the start or at any later time."""
    events = (event.set for event in topology.timeline.events if event.set is not None)
    return any(link.duplicate for link in topology.links) or any(change.duplicate for change in events)


def _node(
    topology: Topology, name: str, addresses: Mapping[str, Address], engine: str, seed: int, duplicates: bool
) -> NodePlan:
    site, own, mtu = topology.site(name), addresses[name], topology.transport.mtu
    others = [other.name for other in topology.sites if other.name != name]
    peers = tuple(_peer(topology, name, other, addresses[other], len(others), seed) for other in others)
    return NodePlan(
        site=name,
        address=own.wan,
        prefix=own.prefix,
        mgmt_address=own.mgmt,
        mgmt_prefix=own.mgmt_prefix,
        engine=engine,
        mtu=mtu,
        up=site.up,
        down=site.down,
        queue_down=downlink_queue(topology, name),
        burst_hz=BURST_HZ,
        segmented=any(peer.departure.per_packet for peer in peers),
        copies=duplicates,
        sysctls=sysctls(topology.transport, engine),
        congestion_control=topology.transport.congestion_control,
        peers=peers,
    )


def downlink_queue(topology: Topology, name: str) -> int:
    """Room ahead of the downlink of a site, bytes; all that arrives shares it.

    The largest of what is stated for links whose bottleneck it is. Else room for the bandwidth-delay product of the
    longest path, since several senders may meet here.
    """
    site, mtu = topology.site(name), topology.transport.mtu
    others = [other for other in topology.sites if other.name != name]
    stated = [
        topology.queue(other.name, name)
        for other in others
        if (link := topology.link(other.name, name)).queue is not None
        and site.down < (min(other.up, link.rate) if link.rate is not None else other.up)
    ]
    products = [queue_limit(min(site.down, other.up), topology.rtt(name, other.name), mtu) for other in others]
    return max(stated or products, default=queue_limit(site.down, 0.0, mtu))


def _peer(topology: Topology, name: str, other: str, address: Address, peers: int, seed: int) -> Peer:
    there, back = topology.link(name, other), topology.link(other, name)
    up, rate = topology.site(name).up, topology.rate(name, other)
    return Peer(
        site=other,
        address=address.wan,
        mac=address.mac,
        share=min(up / peers, rate),
        rate=min(up, there.rate) if there.rate is not None else up,
        queue=topology.queue(name, other),
        departure=impairment(there, seed),
        arrival=impairment(back, seed),
    )


def impairment(link: Link, seed: int) -> Impairment:
    """Delay, jitter, loss and duplication of a link, with a seed of its own."""
    loss = link.loss
    if not isinstance(loss, GilbertElliott):
        loss = GilbertElliott(to_bad=0.0, to_good=1.0, loss_in_good=loss)
    jitter = link.jitter
    return Impairment(
        delay=link.delay,
        spread=jitter.spread if jitter else 0.0,
        distribution=jitter.distribution if jitter else "normal",
        reorder=jitter.reorder if jitter else False,
        to_bad=loss.to_bad,
        to_good=loss.to_good,
        loss_in_bad=loss.loss_in_bad if loss.to_bad else 0.0,
        loss_in_good=loss.loss_in_good,
        duplicate=link.duplicate,
        seed=f"{seed}:{link.source}:{link.target}",
    )


def sysctls(transport: Transport, engine: str) -> dict[str, str]:
    """TCP as pinned in a node. All are per network namespace. Congestion control is the route's.

    No slow start after idle, since local training pauses every connection for minutes; no metrics kept from one
    connection to the next, since probes would set the start of the training's.
    """
    # With netem, packets reach routing from another device than the one by which answers leave.
    reverse = {f"net.ipv4.conf.{which}.rp_filter": "0" for which in ("all", "default")} if engine == "netem" else {}
    return {
        **reverse,
        "net.ipv4.tcp_rmem": f"4096 131072 {transport.buffer}",
        "net.ipv4.tcp_wmem": f"4096 65536 {transport.buffer}",
        "net.ipv4.tcp_slow_start_after_idle": "0",
        "net.ipv4.tcp_no_metrics_save": "1",
        "net.ipv6.conf.all.disable_ipv6": "1",
        "net.ipv6.conf.default.disable_ipv6": "1",
    }
