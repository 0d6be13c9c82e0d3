"""What the queues of a running network have counted, and what that means in rates; as JSON and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from netsim.emulated.node.requests import NodeTraffic

# What grows as long as a network is open.
_COUNTED = ("bytes", "packets", "drops", "lost", "overrun")  # of a link
_COUNTED_BY_DAEMONS = ("packets", "slots", "late_slots", "processor_seconds")


@dataclass(frozen=True)
class LinkCounts:
    """One directed link, since the network was opened: frames with their headers.

    bytes, packets: that left the uplink's queue for it. drops: packets that this queue had no room for. queue_bytes,
    queue_packets: what waits there now. lost: packets that the link's loss took. overrun: packets that were dropped
    since the receiver's delay daemon did not keep up, which no network does.
    """

    source: str
    target: str
    bytes: int
    packets: int
    drops: int
    queue_bytes: int
    queue_packets: int
    lost: int
    overrun: int = 0


@dataclass(frozen=True)
class DownlinkCounts:
    """The queue ahead of a site's downlink, which all that arrives there shares; counted like a link's."""

    site: str
    bytes: int
    packets: int
    drops: int
    queue_bytes: int
    queue_packets: int


@dataclass(frozen=True)
class DaemonCounts:
    """The delay daemon of a site, since the network was opened; none with the netem engine.

    packets: that it handled, a batch of segments as one. slots: tenths of a second with packets; late_slots: those of
    them in which it was more than 20 ms behind. most_behind: seconds. processor_seconds: that it used.
    """

    site: str
    packets: int
    slots: int
    late_slots: int
    most_behind: float
    processor_seconds: float


@dataclass(frozen=True)
class TrafficCounts:
    """All links, downlinks and delay daemons at one time. at: seconds on the host's monotonic clock."""

    at: float
    links: tuple[LinkCounts, ...]
    downlinks: tuple[DownlinkCounts, ...]
    daemons: tuple[DaemonCounts, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrafficCounts:
        links = tuple(LinkCounts(**link) for link in data["links"])
        downlinks = tuple(DownlinkCounts(**link) for link in data["downlinks"])
        return cls(data["at"], links, downlinks, tuple(DaemonCounts(**one) for one in data["daemons"]))


@dataclass(frozen=True)
class LinkRates:
    """A link between two readings. bit_per_second: on the wire. drops, lost: packets. queue_bytes: at the end."""

    source: str
    target: str
    bit_per_second: float
    packets_per_second: float
    drops: int
    lost: int
    queue_bytes: int


def traffic_counts(nodes: Mapping[str, NodeTraffic]) -> TrafficCounts:
    """The counts of a network from those of its nodes, by site."""
    links = [
        LinkCounts(
            source=source,
            target=target,
            lost=nodes[target].lost.get(source, 0),
            overrun=nodes[target].overrun.get(source, 0),
            **counted,
        )
        for source, node in nodes.items()
        for target, counted in node.out.items()
    ]
    downlinks = tuple(DownlinkCounts(site=site, **node.down) for site, node in nodes.items() if node.down)
    daemons = tuple(DaemonCounts(site=site, **node.daemon) for site, node in nodes.items() if node.daemon)  # type: ignore[arg-type]  # JSON has one kind of number
    return TrafficCounts(max((node.at for node in nodes.values()), default=0.0), tuple(links), downlinks, daemons)


def carried(before: TrafficCounts, after: TrafficCounts) -> list[LinkCounts]:
    """What each link counted between two readings, and what its queue holds at the second."""
    earlier = {(link.source, link.target): link for link in before.links}
    return [
        replace(link, **_growth(past, link, _COUNTED))
        for link in after.links
        if (past := earlier.get((link.source, link.target))) is not None
    ]


def handled(before: TrafficCounts, after: TrafficCounts) -> list[DaemonCounts]:
    """What each delay daemon counted between two readings; `most_behind` remains that since the network was opened."""
    earlier = {daemon.site: daemon for daemon in before.daemons}
    return [
        replace(daemon, **_growth(past, daemon, _COUNTED_BY_DAEMONS))
        for daemon in after.daemons
        if (past := earlier.get(daemon.site)) is not None
    ]


def _growth(before: object, after: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(after, name) - getattr(before, name) for name in names}


def link_rates(before: TrafficCounts, after: TrafficCounts) -> list[LinkRates]:
    """What each link carried between two readings."""
    seconds = max(after.at - before.at, 1e-9)
    return [
        LinkRates(
            link.source,
            link.target,
            8 * link.bytes / seconds,
            link.packets / seconds,
            link.drops,
            link.lost,
            link.queue_bytes,
        )
        for link in carried(before, after)
    ]


_HELP = {
    "bytes": ("counter", "Bytes that left the queue, with all headers."),
    "packets": ("counter", "Packets that left the queue."),
    "drops": ("counter", "Packets that the queue had no room for."),
    "lost": ("counter", "Packets that the loss of the link took."),
    "overrun": ("counter", "Packets dropped since the receiver's delay daemon did not keep up."),
    "queue_bytes": ("gauge", "Bytes in the queue."),
    "queue_packets": ("gauge", "Packets in the queue."),
}


def prometheus_text(counts: TrafficCounts, network: str) -> str:
    """The counts in the Prometheus text format, version 0.0.4: one family per kind of link and quantity."""
    lines: list[str] = []
    for prefix, entries, labels in (
        ("longhaul_link", counts.links, ("source", "target")),
        ("longhaul_downlink", counts.downlinks, ("site",)),
    ):
        lines += _families(prefix, entries, labels, network)
    return "\n".join(lines) + "\n"


def _families(
    prefix: str, entries: Iterable[LinkCounts | DownlinkCounts], labels: tuple[str, ...], network: str
) -> Iterator[str]:
    listed = list(entries)
    if not listed:
        return
    for name in [field.name for field in fields(listed[0]) if field.name in _HELP]:
        kind, text = _HELP[name]
        family = f"{prefix}_{name}" + ("_total" if kind == "counter" else "")
        yield f"# HELP {family} {text}"
        yield f"# TYPE {family} {kind}"
        for entry in listed:
            named = ",".join(f'{label}="{getattr(entry, label)}"' for label in labels)
            yield f'{family}{{network="{network}",{named}}} {getattr(entry, name)}'
