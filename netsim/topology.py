"""A WAN: sites with access links, and directed links between them. The file format is in docs/topologies.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from netsim.core_links import CoreEntry, CoreLink, core_links, subset_core
from netsim.documents import Document, Name, located, read_yaml, validate
from netsim.errors import InputError, Phrase
from netsim.events import Event
from netsim.framing import ETHERNET, queue_limit
from netsim.importers import SUFFIXES, is_json_graph, read_graph, site_name, topology_name
from netsim.library import find
from netsim.links import GilbertElliott, Impairments, Jitter, Link, Site, Transport
from netsim.queue_kinds import LONGEST_QUEUE, ManagedQueue, Stated, keep_kinds, managed, room_of, thresholds
from netsim.regions import TABLES, WORLD, Region, RegionTable, delay_between, expand_regions, read_regions, world
from netsim.timeline import Timeline, timeline_of
from netsim.traces import expand_trace
from netsim.units import Rate

__all__ = [
    "CoreLink",
    "GilbertElliott",
    "Jitter",
    "Link",
    "Site",
    "Topology",
    "Transport",
    "find_topology",
    "load_topology",
    "read_topology",
    "topology_from",
]


@dataclass(frozen=True)
class Topology:
    """Sites and the complete set of directed links between them."""

    name: str
    sites: tuple[Site, ...]
    links: tuple[Link, ...]
    transport: Transport = field(default_factory=Transport)
    description: str = ""
    source: str = ""
    timeline: Timeline = field(default_factory=Timeline)  # what happens to it while it is used
    core: tuple[CoreLink, ...] = ()  # what pairs share besides the access links, in the order in which it is crossed

    @cached_property
    def _link_of(self) -> Mapping[tuple[str, str], Link]:
        return {(link.source, link.target): link for link in self.links}

    @cached_property
    def _site_of(self) -> Mapping[str, Site]:
        return {site.name: site for site in self.sites}

    def site(self, name: str) -> Site:
        return self._site_of[name]

    def link(self, source: str, target: str) -> Link:
        return self._link_of[source, target]

    @cached_property
    def _core_of(self) -> Mapping[tuple[str, str], tuple[CoreLink, ...]]:
        crossed: dict[tuple[str, str], tuple[CoreLink, ...]] = {}
        for link in self.core:
            for pair in link.pairs:
                crossed[pair] = (*crossed.get(pair, ()), link)
        return crossed

    def core_of(self, source: str, target: str) -> tuple[CoreLink, ...]:
        """The shared links that the pair crosses, in their order."""
        return self._core_of.get((source, target), ())

    def core_queue(self, link: CoreLink) -> int:
        """Room ahead of a shared link, bytes; unless stated, for the bandwidth-delay product of its longest pair."""
        if (room := room_of(link.queue)) is None:
            return queue_limit(link.rate, max(self.rtt(*pair) for pair in link.pairs), self.transport.mtu)
        return self._bytes(room, link.rate)

    def pairs(self) -> Iterator[tuple[Site, Site]]:
        """Every directed pair of different sites."""
        return ((a, b) for a in self.sites for b in self.sites if a is not b)

    def rate(self, source: str, target: str) -> float:
        """Line rate of the pair when nothing else is sent: the narrowest of all that it crosses, bit/s."""
        cap = self.link(source, target).rate
        shared = (link.rate for link in self.core_of(source, target))
        return min(self.site(source).up, self.site(target).down, *shared, *(() if cap is None else (cap,)))

    @property
    def loses_packets(self) -> bool:
        """Whether any of its links does."""
        return any(link.mean_loss > 0 for link in self.links)

    def rtt(self, a: str, b: str) -> float:
        """Round-trip time of an empty network, seconds."""
        return self.link(a, b).delay + self.link(b, a).delay

    def queue(self, source: str, target: str) -> int:
        """Room ahead of the pair's bottleneck, bytes; unless stated, for the bandwidth-delay product."""
        stated, rate = room_of(self.link(source, target).queue), self.rate(source, target)
        if stated is None:
            return queue_limit(rate, self.rtt(source, target), self.transport.mtu)
        return self._bytes(stated, rate)

    def downlink_kind(self, name: str) -> ManagedQueue | None:
        """The kind of the queue ahead of a site's downlink: what links to it have stated; None for droptail."""
        stated = (managed(self.link(other.name, name).queue) for other in self.sites if other.name != name)
        return next((kind for kind in stated if kind is not None), None)

    def managed_queues(self) -> Iterator[tuple[str, ManagedQueue]]:
        """Every queue that is not droptail, with its place in words."""
        for place, queue in self._queues():
            if (kind := managed(queue)) is not None:
                yield place, kind

    def _queues(self) -> Iterator[tuple[str, Stated]]:
        yield from ((f"links {link.source} -> {link.target}", link.queue) for link in self.links)
        yield from ((f"core {link.name}", link.queue) for link in self.core)

    def _bytes(self, queue: int | float, rate: float) -> int:
        if isinstance(queue, int):
            return queue
        return min(LONGEST_QUEUE, max(2 * (self.transport.mtu + ETHERNET), round(queue * rate / 8)))

    def scaled(self, rates: float = 1.0, delays: float = 1.0) -> Topology:
        """The same with every rate times `rates` and every delay times `delays`; all else, the timeline too, stays."""
        return replace(
            self,
            sites=tuple(replace(site, up=site.up * rates, down=site.down * rates) for site in self.sites),
            links=tuple(
                replace(link, delay=link.delay * delays, rate=None if link.rate is None else link.rate * rates)
                for link in self.links
            ),
            core=tuple(replace(link, rate=link.rate * rates) for link in self.core),
        )


# --- the file ---------------------------------------------------------------------------------------------------------


class _LinkEntry(Impairments):
    between: tuple[str, str] | None = None  # both directions
    source: str | None = Field(default=None, alias="from")
    target: str | None = Field(default=None, alias="to")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        directed = self.source is not None and self.target is not None
        if directed == (self.between is not None) or (self.source is None) != (self.target is None):
            raise ValueError("either between: [a, b], or from: a with to: b")
        return self

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        if self.between is not None:
            a, b = self.between
            return (a, b), (b, a)
        assert self.source is not None
        assert self.target is not None
        return ((self.source, self.target),)


class _SiteEntry(Document):
    up: Rate | None = None
    down: Rate | None = None
    workers: int = Field(default=1, ge=1, le=64)
    region: str | None = None  # gives the delays and rates that are not stated


class _Defaults(Impairments):
    up: Rate | None = None
    down: Rate | None = None


def _allow_path(schema: dict[str, Any]) -> None:
    """As a file may have it: the path of a file of regions."""
    schema["anyOf"].append({"type": "string"})


class TopologyFile(Document):
    """A topology as written; the format is described in docs/topologies.md."""

    name: Name
    description: str = ""
    source: str = ""
    defaults: _Defaults = _Defaults()
    regions: RegionTable | None = Field(default=None, json_schema_extra=_allow_path)
    sites: dict[str, _SiteEntry] = Field(min_length=1, max_length=64)
    links: tuple[_LinkEntry, ...] = ()
    core: tuple[CoreEntry, ...] = Field(default=(), max_length=1024)
    transport: Transport = Transport()
    timeline: tuple[Event, ...] = ()


def find_topology(name: str, beside: Path | None = None) -> Path:
    """A topology or graph by path (relative to `beside` or here) or by its name in the library."""
    return find("topologies", name, [beside] if beside else [])


@located()
def load_topology(path: Path) -> Topology:
    """The topology in a YAML file. Every directed pair must be given, or covered by `defaults`."""
    return topology_from(read_topology(path), str(path))


def read_topology(path: Path) -> dict[str, Any]:
    """The document in `path`, made to stand alone: graphs and tables become one, files that it names are read."""
    if path.suffix in SUFFIXES or (path.suffix == ".json" and is_json_graph(path)):
        return read_graph(path)
    if path.suffix.lower() in TABLES:
        return _of_every_region(path)
    return stand_alone(read_yaml(path), path.parent, str(path))


def stand_alone(document: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """The document with the files that it names (relative to `folder`) read, and the library's regions that it uses.

    Whoever reads it later, in a node or on another host, needs nothing else.
    """
    found = {**document}
    sites = document.get("sites")
    entries = sites.items() if isinstance(sites, dict) else ()
    located_in = {str(name): entry.get("region") for name, entry in entries if isinstance(entry, dict)}
    chosen = {name: str(region) for name, region in located_in.items() if region is not None}
    if chosen or "regions" in document:
        found["regions"] = expand_regions(document.get("regions", str(WORLD)), folder, chosen, where)
    events = document.get("timeline")
    for index, event in enumerate(events if isinstance(events, list) else []):
        trace = event.get("trace") if isinstance(event, dict) else None
        if isinstance(trace, dict) and "file" in trace:
            event["trace"] = expand_trace(trace, folder, where, f"timeline.{index}.trace")
    return found


def _of_every_region(path: Path) -> dict[str, Any]:
    """A table of regions as a topology: a site in each, with the rates in the columns `up` and `down`."""
    table = read_regions(path)
    for side in ("up", "down"):
        if lacking := [name for name, place in table["regions"].items() if side not in place]:
            allowed = f"a column {side} with its rate, like '1 Gbit'; or a topology file with regions: {path.name}"
            raise InputError(str(path), lacking[0], Phrase(f"no rate {side}"), allowed)
    sites = {site_name(name): {"region": name} for name in table["regions"]}
    if len(sites) < len(table["regions"]):
        raise InputError(str(path), "", Phrase("regions of like names"), "names that differ in letters and digits")
    return {"name": topology_name(path), "source": table["source"], "regions": table, "sites": sites}


def topology_from(document: Mapping[str, Any], where: str) -> Topology:
    """The topology in an already read document (a run record keeps the document, in its human units)."""
    return _resolve(validate(TopologyFile, document, where), where)


def _resolve(file: TopologyFile, where: str) -> Topology:
    sites = tuple(_site(name, entry, file, where) for name, entry in file.sites.items())
    given: dict[tuple[str, str], _LinkEntry] = {}
    for index, entry in enumerate(file.links):
        for ends in entry.ends:
            if unknown := sorted(set(ends) - set(file.sites)):
                allowed = f"sites of this file: {', '.join(file.sites)}"
                raise InputError(where, f"links.{index}", unknown[0], allowed)
            if ends[0] == ends[1] or ends in given:
                raise InputError(where, f"links.{index}", " -> ".join(ends), "each pair of different sites once")
            given[ends] = entry
    links = tuple(
        _link(a.name, b.name, given.get((a.name, b.name)), file, where) for a in sites for b in sites if a is not b
    )
    core = core_links(file.core, file.sites, where)
    least = 2 * (file.transport.mtu + ETHERNET)
    stated = {f"links {link.source} -> {link.target}": link.queue for link in links}
    stated |= {f"core.{index}": entry.queue for index, entry in enumerate(file.core)}
    stated |= {f"timeline.{index}.set": event.set.queue for index, event in enumerate(file.timeline) if event.set}
    for field_name, queue in stated.items():
        if isinstance(room := room_of(queue), int) and room < least:
            raise InputError(where, f"{field_name}.queue", f"{room} B", f"at least two full frames ({least} B)")
    timeline = timeline_of(file.timeline, [site.name for site in sites], where)
    found = Topology(file.name, sites, links, file.transport, file.description, file.source, timeline, core)
    _check_kinds(found, where)
    return found


def _check_kinds(topology: Topology, where: str) -> None:
    """One kind per queue, for as long as the network is up, and thresholds that its room holds."""
    keep_kinds(queue_changes(topology, topology.timeline.events), where)
    for link in topology.links:
        shared = topology.downlink_kind(link.target)
        if (own := managed(link.queue)) is not None and (shared is None or _apart(own) != _apart(shared)):
            allowed = f"one kind with the same options for all links to {link.target}, which share its downlink's queue"
            raise InputError(where, f"links {link.source} -> {link.target}.queue", own.kind, allowed)
    rooms = [
        (
            f"links {link.source} -> {link.target}",
            link.queue,
            topology.queue(link.source, link.target),
            topology.rate(link.source, link.target),
        )
        for link in topology.links
    ] + [(f"core {link.name}", link.queue, topology.core_queue(link), link.rate) for link in topology.core]
    for field_name, stated, room, rate in rooms:
        if (kind := managed(stated)) is not None and kind.kind == "red":
            try:
                thresholds(kind, room, rate)
            except ValueError as error:
                raise InputError(where, f"{field_name}.queue", Phrase(f"{room} B of room"), str(error)) from None


def queue_changes(topology: Topology, events: Iterable[Event]) -> Iterator[tuple[str, Stated, Stated]]:
    """Every queue that an event sets: where, what it was at the start, and what it becomes."""
    for index, event in enumerate(events):
        if event.set is not None and "queue" in event.set.model_fields_set:
            for pair in event.set.pairs:
                yield f"timeline.{index}.set", topology.link(*pair).queue, event.set.queue


def _apart(kind: ManagedQueue) -> ManagedQueue:
    return kind.model_copy(update={"size": None})


def _site(name: str, entry: _SiteEntry, file: TopologyFile, where: str) -> Site:
    if not name or len(name) > 30 or not name.replace("-", "").isalnum() or (not name.islower() and not name.isdigit()):
        raise InputError(where, f"sites.{name}", name, "names of at most 30 lower-case letters, digits and hyphens")
    region = Region() if entry.region is None else (file.regions or world()).regions.get(entry.region, Region())
    rates: dict[str, float] = {}
    for side in ("up", "down"):
        stated = (getattr(source, side) for source in (entry, region, file.defaults))
        rate: float | None = next((one for one in stated if one is not None), None)
        if not rate:
            found = "nothing" if rate is None else "0"
            raise InputError(where, f"sites.{name}.{side}", found, "a rate above zero, here or under defaults")
        rates[side] = rate
    return Site(name, rates["up"], rates["down"], entry.workers)


def _link(source: str, target: str, entry: _LinkEntry | None, file: TopologyFile, where: str) -> Link:
    """The pair's own entry over the defaults, field by field: setting one impairment never erases another."""
    fields = {**_given(file.defaults), **(_given(entry) if entry else {})}
    regions = file.sites[source].region, file.sites[target].region
    if entry is not None and entry.model_fields_set & {"delay", "rtt"}:
        fields["delay"] = entry.delay if entry.delay is not None else (entry.rtt or 0.0) / 2
    elif regions[0] is not None and regions[1] is not None:
        places = f"{where}: sites.{source}", f"{where}: sites.{target}"
        fields["delay"] = delay_between(file.regions or world(), regions[0], regions[1], *places)
    elif "delay" not in fields and "rtt" in fields:
        fields["delay"] = fields["rtt"] / 2
    if "delay" not in fields:
        allowed = f"an entry with a delay for {source} -> {target}, a delay under defaults, or a region of both sites"
        raise InputError(where, "links", f"no delay for the pair {source} -> {target}", allowed)
    return Link(source, target, **{key: value for key, value in fields.items() if key != "rtt"})


def _given(entry: Impairments) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Impairments.model_fields if name in entry.model_fields_set}


def subset_document(document: dict[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """A checked topology document reduced to the sites in `kept`, with the links and events among them."""
    found = {
        **document,
        "sites": {name: entry for name, entry in document["sites"].items() if name in kept},
        "links": [link for link in document.get("links", []) if _named(link) <= set(kept)],
    }
    if "core" in document:
        found["core"] = subset_core(document["core"], kept)
    if "timeline" in document:
        found["timeline"] = list(_events(document["timeline"], set(kept)))
    return found


def _events(events: list[dict[str, Any]], kept: set[str]) -> Iterator[dict[str, Any]]:
    """A partition keeps the groups that still have sites; one that parts nobody goes, and what heals it with it."""
    parted = False
    for event in events:
        if "partition" in event:
            groups = [[name for name in group if name in kept] for group in event["partition"]["groups"]]
            groups = [group for group in groups if group]
            parted = parted or len(groups) > 1
            if len(groups) > 1:
                yield {**event, "partition": {**event["partition"], "groups": groups}}
        elif "heal" in event:
            if parted:
                yield event
        elif all(_named(what) <= kept for what in event.values() if isinstance(what, dict)):
            yield event


def _named(entry: dict[str, Any]) -> set[str]:
    """The sites that a link or an event is about."""
    return set(entry.get("between", ())) | {entry[key] for key in ("from", "to", "site") if key in entry}
