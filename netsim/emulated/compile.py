"""From a topology to the plan of each node: a pure function, so that what a node does can be read before it is done."""

from __future__ import annotations

from collections.abc import Mapping

from netsim.emulated.plan import Address, CoreStage, Impairment, NodePlan, Peer, QueueControl
from netsim.framing import queue_limit
from netsim.links import INITIAL_WINDOW
from netsim.queue_kinds import Stated, managed, thresholds
from netsim.topology import GilbertElliott, Link, Topology, Transport

CORE_NODE = "core.node"  # which no site can be called: it carries the links that pairs share
BURST_HZ = 250  # the slowest tick in common use, so that the bucket is large enough on every kernel


FORWARDING = {"net.ipv4.ip_forward": "1"}


def compile_topology(
    topology: Topology, addresses: Mapping[str, Address], engine: str, seed: int, *, duplicates: bool = False
) -> list[NodePlan]:
    """One plan per site, in the topology's order, and one for the node that carries shared links, where there are any.

    duplicates: whether any link does, now or later.
    """
    plans = [_node(topology, site.name, addresses, engine, seed, duplicates) for site in topology.sites]
    return [*plans, _core_node(topology, addresses)] if topology.core else plans


def node_names(topology: Topology) -> list[str]:
    """Of all nodes, in the order of their plans."""
    return [*(site.name for site in topology.sites), *([CORE_NODE] if topology.core else [])]


def duplicates_ever(topology: Topology) -> bool:
    """Whether any link duplicates packets, at the start or at any later time."""
    events = (event.set for event in topology.timeline.events if event.set is not None)
    return any(link.duplicate for link in topology.links) or any(change.duplicate for change in events)


def _node(
    topology: Topology, name: str, addresses: Mapping[str, Address], engine: str, seed: int, duplicates: bool
) -> NodePlan:
    site, own, mtu = topology.site(name), addresses[name], topology.transport.mtu
    others = [other.name for other in topology.sites if other.name != name]
    peers = tuple(_peer(topology, name, other, addresses, len(others), seed) for other in others)
    queue_down = downlink_queue(topology, name)
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
        queue_down=queue_down,
        burst_hz=BURST_HZ,
        # What is dropped, marked and counted by a managed queue are frames, wherever it is on their way.
        segmented=managed_ever(topology) or any(peer.departure.per_packet for peer in peers),
        copies=duplicates,
        sysctls=sysctls(topology.transport, engine, ecn=marks_ever(topology)),
        congestion_control=topology.transport.congestion_control,
        peers=peers,
        mgmt_neighbours=_mgmt_neighbours(name, addresses),
        control_down=queue_control(topology.downlink_kind(name), queue_down, site.down),
        initial_window=_initial_window(topology.transport),
    )


def _core_node(topology: Topology, addresses: Mapping[str, Address]) -> NodePlan:
    own, mtu = addresses[CORE_NODE], topology.transport.mtu
    nothing = Impairment(0.0)
    return NodePlan(
        site=CORE_NODE,
        address=own.wan,
        prefix=own.prefix,
        mgmt_address=own.mgmt,
        mgmt_prefix=own.mgmt_prefix,
        engine="core",
        mtu=mtu,
        up=0.0,
        down=0.0,
        queue_down=0,
        burst_hz=BURST_HZ,
        segmented=False,
        sysctls={**sysctls(topology.transport, "core"), **FORWARDING},
        congestion_control=topology.transport.congestion_control,
        peers=tuple(
            Peer(site.name, addresses[site.name].wan, addresses[site.name].mac, 0.0, 0.0, 0, nothing, nothing)
            for site in topology.sites
        ),
        mgmt_neighbours=_mgmt_neighbours(CORE_NODE, addresses),
        core=tuple(
            CoreStage(
                link.name,
                link.rate,
                topology.core_queue(link),
                tuple((addresses[a].wan, addresses[b].wan) for a, b in link.pairs),
                queue_control(link.queue, topology.core_queue(link), link.rate),
            )
            for link in topology.core
        ),
    )


def _mgmt_neighbours(name: str, addresses: Mapping[str, Address]) -> dict[str, str]:
    return {other.mgmt: other.mgmt_mac for node, other in addresses.items() if node != name}


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


def _peer(topology: Topology, name: str, other: str, addresses: Mapping[str, Address], peers: int, seed: int) -> Peer:
    address, via = addresses[other], CORE_NODE if topology.core_of(name, other) else other
    there, back = topology.link(name, other), topology.link(other, name)
    up, rate, queue = topology.site(name).up, topology.rate(name, other), topology.queue(name, other)
    return Peer(
        site=other,
        address=address.wan,
        mac=addresses[via].mac,
        share=min(up / peers, rate),
        rate=min(up, there.rate) if there.rate is not None else up,
        queue=queue,
        departure=impairment(there, seed),
        arrival=impairment(back, seed),
        control=queue_control(there.queue, queue, rate),
    )


def _initial_window(transport: Transport) -> int | None:
    return None if transport.initial_window == INITIAL_WINDOW else transport.initial_window


def queue_control(stated: Stated, room: int, rate: float) -> QueueControl | None:
    """What a queue of `room` bytes ahead of `rate` bit/s does besides dropping at its end."""
    if (kind := managed(stated)) is None:
        return None
    if kind.kind == "fq_codel":
        return QueueControl(kind.kind, kind.ecn, kind.target, kind.interval)
    least, most = thresholds(kind, room, rate)
    return QueueControl(kind.kind, kind.ecn, least=least, most=most, probability=kind.probability)


def managed_ever(topology: Topology) -> bool:
    """Whether any queue is more than droptail; kinds stay for as long as the network is up."""
    return any(True for _ in topology.managed_queues())


def marks_ever(topology: Topology) -> bool:
    """Whether any queue marks packets instead of dropping them, so that TCP must ask for that."""
    changed = (managed(event.set.queue) for event in topology.timeline.events if event.set is not None)
    kinds = [*(kind for _, kind in topology.managed_queues()), *changed]
    return any(kind is not None and kind.ecn for kind in kinds)


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


def sysctls(transport: Transport, engine: str, *, ecn: bool = False) -> dict[str, str]:
    """TCP as pinned in a node. All are per network namespace. Congestion control is the route's.

    ecn: whether connections ask for marks instead of drops; without, as Linux does, they only grant them.
    No slow start after idle, since local training pauses every connection for minutes; no metrics kept from one
    connection to the next, since probes would set the start of the training's.
    """
    # With netem, and past a core link, packets reach routing from another device than the one by which answers leave.
    reverse = {} if engine == "nfqueue" else {f"net.ipv4.conf.{which}.rp_filter": "0" for which in ("all", "default")}
    # A receiver grants no more of a first window than its buffer has room for; half of it is the kernel's own.
    first = min(transport.buffer, max(131_072, 4 * transport.initial_window * transport.mtu))
    return {
        **reverse,
        **({"net.ipv4.tcp_ecn": "1"} if ecn else {}),
        "net.ipv4.tcp_rmem": f"4096 {first} {transport.buffer}",
        "net.ipv4.tcp_wmem": f"4096 65536 {transport.buffer}",
        "net.ipv4.tcp_slow_start_after_idle": "0",
        "net.ipv4.tcp_no_metrics_save": "1",
        "net.ipv6.conf.all.disable_ipv6": "1",
        "net.ipv6.conf.default.disable_ipv6": "1",
    }
