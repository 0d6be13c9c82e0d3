"""A WAN: sites with access links, and directed links between them. The file format is in docs/topologies.md."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from netsim.documents import Document, Name, located, read_yaml, validate
from netsim.errors import InputError
from netsim.events import Event
from netsim.framing import ETHERNET, queue_limit
from netsim.importers import SUFFIXES, read_graph, read_mahimahi
from netsim.library import find
from netsim.links import LONGEST_QUEUE, GilbertElliott, Impairments, Jitter, Link, Site, Transport
from netsim.regions import delay_between
from netsim.timeline import Timeline, timeline_of
from netsim.units import Rate, parse_duration

__all__ = [
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

    @cached_property
    def _link_of(self) -> Mapping[tuple[str, str], Link]:
        return {(link.source, link.target): link for link in self.links}

    @cached_property
    def site_of_rank(self) -> tuple[Site, ...]:
        """The site of each rank: sites in the order of the topology, each with its workers."""
        return tuple(site for site in self.sites for _ in range(site.workers))

    @cached_property
    def _site_of(self) -> Mapping[str, Site]:
        return {site.name: site for site in self.sites}

    def site(self, name: str) -> Site:
        return self._site_of[name]

    def link(self, source: str, target: str) -> Link:
        return self._link_of[source, target]

    def pairs(self) -> Iterator[tuple[Site, Site]]:
        """Every directed pair of different sites."""
        return ((a, b) for a in self.sites for b in self.sites if a is not b)

    def rate(self, source: str, target: str) -> float:
        """Line rate of the pair when nothing else is sent: the narrowest of uplink, pair cap and downlink, bit/s."""
        cap = self.link(source, target).rate
        ends = (self.site(source).up, self.site(target).down)
        return min(*ends, cap) if cap is not None else min(ends)

    def rtt(self, a: str, b: str) -> float:
        """Round-trip time of an empty network, seconds."""
        return self.link(a, b).delay + self.link(b, a).delay

    def queue(self, source: str, target: str) -> int:
        """Room ahead of the pair's bottleneck, bytes; unless stated, for the bandwidth-delay product."""
        stated, rate = self.link(source, target).queue, self.rate(source, target)
        if stated is None:
            return queue_limit(rate, self.rtt(source, target), self.transport.mtu)
        if isinstance(stated, int):
            return stated
        return min(LONGEST_QUEUE, max(2 * (self.transport.mtu + ETHERNET), round(stated * rate / 8)))

    def scaled(self, rates: float = 1.0, delays: float = 1.0) -> Topology:
        """The same with every rate times `rates` and every delay times `delays`; all else, the timeline too, stays."""
        return replace(
            self,
            sites=tuple(replace(site, up=site.up * rates, down=site.down * rates) for site in self.sites),
            links=tuple(
                replace(link, delay=link.delay * delays, rate=None if link.rate is None else link.rate * rates)
                for link in self.links
            ),
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
    region: str | None = None  # of the world; gives the delays that are not stated


class _Defaults(Impairments):
    up: Rate | None = None
    down: Rate | None = None


class TopologyFile(Document):
    """A topology as written; the format is described in docs/topologies.md."""

    name: Name
    description: str = ""
    source: str = ""
    defaults: _Defaults = _Defaults()
    sites: dict[str, _SiteEntry] = Field(min_length=1, max_length=64)
    links: tuple[_LinkEntry, ...] = ()
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
    """The document in `path`, made to stand alone: graphs are turned into it, the traces that it names are read."""
    if path.suffix in SUFFIXES:
        return read_graph(path)
    document = read_yaml(path)
    events = document.get("timeline")
    for index, event in enumerate(events if isinstance(events, list) else []):
        trace = event.get("trace") if isinstance(event, dict) else None
        if isinstance(trace, dict) and "file" in trace:
            where = f"timeline.{index}.trace"
            if "rates" in trace:
                raise InputError(str(path), where, "file and rates", "one of them")
            try:
                every = parse_duration(trace.setdefault("every", "100 ms"))
                if every == 0:
                    raise ValueError("a duration above zero")
                file = path.parent / str(trace.pop("file"))
            except ValueError as error:
                raise InputError(str(path), f"{where}.every", trace["every"], str(error)) from None
            rates, step = read_mahimahi(file, every)
            trace |= {"rates": [f"{rate:.3f} bit" for rate in rates], "every": f"{step!r} s"}
    return document


def topology_from(document: Mapping[str, Any], where: str) -> Topology:
    """The topology in an already read document (a run record keeps the document, in its human units)."""
    return _resolve(validate(TopologyFile, document, where), where)


def _resolve(file: TopologyFile, where: str) -> Topology:
    sites = tuple(_site(name, entry, file.defaults, where) for name, entry in file.sites.items())
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
    least = 2 * (file.transport.mtu + ETHERNET)
    stated = {f"links {link.source} -> {link.target}": link.queue for link in links}
    stated |= {f"timeline.{index}.set": event.set.queue for index, event in enumerate(file.timeline) if event.set}
    for field_name, queue in stated.items():
        if isinstance(queue, int) and queue < least:
            raise InputError(where, f"{field_name}.queue", f"{queue} B", f"at least two full frames ({least} B)")
    timeline = timeline_of(file.timeline, [site.name for site in sites], where)
    return Topology(file.name, sites, links, file.transport, file.description, file.source, timeline)


def _site(name: str, entry: _SiteEntry, defaults: _Defaults, where: str) -> Site:
    if not name or len(name) > 30 or not name.replace("-", "").isalnum() or (not name.islower() and not name.isdigit()):
        raise InputError(where, f"sites.{name}", name, "names of at most 30 lower-case letters, digits and hyphens")
    rates: dict[str, float] = {}
    for side in ("up", "down"):
        own: float | None = getattr(entry, side)
        rate: float | None = own if own is not None else getattr(defaults, side)
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
        fields["delay"] = delay_between(regions[0], regions[1], f"{where}: sites.{source}", f"{where}: sites.{target}")
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
