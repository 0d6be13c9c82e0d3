"""What happens to a WAN while it is used: a timeline of events, the same for the emulator and the simulator.

Times are seconds from the start of training. `Timeline.states` turns the events into the ordered list of topologies
that hold one after the other; a severed link loses every packet (loss 1). Cross-traffic and what happens to sites are
apart, since they are not properties of a link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from netsim.errors import InputError
from netsim.events import Event, Flap, Partition, Place, Ramp, Set, Trace
from netsim.links import Impairments, Link, Site

if TYPE_CHECKING:
    from netsim.topology import Topology

MOST_STATES = 20_000


@dataclass(frozen=True)
class CrossTraffic:
    """Datagrams at `rate` bit/s (on the wire) from `start` to `end` seconds."""

    source: str
    target: str
    rate: float
    start: float
    end: float


@dataclass(frozen=True)
class Incident:
    """Something that happens to a site's workers at a time."""

    at: float
    site: str
    kind: Literal["pause", "resume", "crash", "restart"]


@dataclass(frozen=True)
class Timeline:
    """Events in the order in which they begin; those that begin together, in the order of the file."""

    events: tuple[Event, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.events)

    @cached_property
    def end(self) -> float:
        """When the last event is over, seconds."""
        return max((event.stop for event in self.events), default=0.0)

    def only(self, names: Sequence[str]) -> Timeline:
        """Without the events that speak of other sites."""
        return Timeline(tuple(event for event in self.events if set(event.names()) <= set(names)))

    def times(self) -> list[float]:
        """When the state of some link or site may change, ascending, without zero."""
        found = {round(time, 9) for event in self.events for time in _changes(event)}
        return sorted(found - {0.0})

    def state_at(self, topology: Topology, time: float) -> Topology:
        """The topology that holds at `time`."""
        state = _State(topology)
        healed = max((e.start for e in self.events if e.heal and e.start <= time), default=-math.inf)
        for event in self.events:
            if event.start <= time + 1e-9:
                _apply(state, event, time, healed)
        return state.topology()

    def states(self, topology: Topology) -> list[tuple[float, Topology]]:
        """What holds from when on; the first from 0. States that equal the one before are left out."""
        found = [(0.0, self.state_at(topology, 0.0))]
        for time in self.times():
            state = self.state_at(topology, time)
            if state != found[-1][1]:
                found.append((time, state))
        return found

    def cross_traffic(self) -> list[CrossTraffic]:
        """Every stretch of cross-traffic, by start."""
        found = []
        for event in self.events:
            if (traffic := event.traffic) is not None:
                for start, end in _stretches(event.start, event.stop, traffic.busy, traffic.idle):
                    found.append(CrossTraffic(traffic.source, traffic.target, traffic.rate, start, end))
        return sorted(found, key=lambda one: one.start)

    def incidents(self) -> list[Incident]:
        """What happens to workers, by time."""
        found = []
        for event in self.events:
            if event.pause is not None:
                found += [Incident(event.start, event.pause.site, "pause")]
                found += [Incident(event.stop, event.pause.site, "resume")]
            elif event.crash is not None:
                found.append(Incident(event.start, event.crash.site, "crash"))
            elif event.restart is not None:
                found.append(Incident(event.start, event.restart.site, "restart"))
        return sorted(found, key=lambda one: one.at)


def timeline_of(events: Sequence[Event], sites: Sequence[str], where: str) -> Timeline:
    """Checks the events against the sites that there are. Raises InputError for an event that does not apply."""
    for index, event in enumerate(events):
        names = event.names()
        if unknown := [name for name in names if name not in sites]:
            raise InputError(where, f"timeline.{index}", unknown[0], f"sites of this file: {', '.join(sites)}")
        if len(set(names)) < len(names) or (
            isinstance(event.action, Place) and not event.action.site and len(names) < 2
        ):
            raise InputError(where, f"timeline.{index}", ", ".join(names), "each site once")
        if event.heal and not any(e.partition and e.start <= event.start for e in events):
            raise InputError(where, f"timeline.{index}", "heal", "a partition that began before it")
        if event.restart and not any(
            e.crash and e.crash.site == event.restart.site and e.start < event.start for e in events
        ):
            raise InputError(where, f"timeline.{index}", "restart", f"a crash of {event.restart.site} before it")
    timeline = Timeline(tuple(sorted(events, key=lambda event: event.start)))
    if (count := len(timeline.times())) > MOST_STATES:
        raise InputError(where, "timeline", f"{count} changes", f"at most {MOST_STATES} changes of the network")
    return timeline


# --- what holds at a time ---------------------------------------------------------------------------------------------


class _State:
    """A topology under change."""

    def __init__(self, topology: Topology) -> None:
        self._base = topology
        self._sites = {site.name: site for site in topology.sites}
        self._links = {(link.source, link.target): link for link in topology.links}
        self._severed: set[tuple[str, str]] = set()

    def topology(self) -> Topology:
        links = tuple(replace(link, loss=1.0) if pair in self._severed else link for pair, link in self._links.items())
        return replace(self._base, sites=tuple(self._sites.values()), links=links, timeline=Timeline())

    def pairs_of(self, place: Place) -> list[tuple[str, str]]:
        """For a site: every link from or to it."""
        return list(place.pairs) or [pair for pair in self._links if place.site in pair]

    def sever(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._severed.update(pairs)

    def sever_between(self, groups: Sequence[Sequence[str]]) -> None:
        group_of = {name: index for index, group in enumerate(groups) for name in group}
        self.sever(
            [p for p in self._links if p[0] in group_of and p[1] in group_of and group_of[p[0]] != group_of[p[1]]]
        )

    def change_site(self, name: str, **rates: float) -> None:
        self._sites[name] = replace(self._sites[name], **rates)  # type: ignore[arg-type]  # only up and down are passed

    def change_links(self, place: Place, change: Callable[[Link], Link]) -> None:
        for pair in place.pairs:
            self._links[pair] = change(self._links[pair])

    def site(self, name: str) -> Site:
        return self._sites[name]

    def line_rate(self, link: Link) -> float:
        ends = self._sites[link.source].up, self._sites[link.target].down
        return min(*ends, link.rate) if link.rate is not None else min(ends)


def _apply(state: _State, event: Event, time: float, healed: float) -> None:
    running = time < event.stop - 1e-9
    match event.action:
        case Set() as action if action.site:
            given = {name: getattr(action, name) for name in ("up", "down") if getattr(action, name) is not None}
            state.change_site(action.site, **given)
        case Set() as action:
            impairments = _given(action)
            state.change_links(action, lambda link: replace(link, **impairments))
        case Ramp() as action:
            share = min(1.0, (time - event.start) / (event.stop - event.start))
            _ramp(state, action, share)
        case Flap() as action if running:
            if (time - event.start) % (action.away + action.back) < action.away - 1e-9:
                state.sever(state.pairs_of(action))
        case Partition(groups=groups) if event.start > healed:
            state.sever_between(groups)
        case Trace() as action if running:
            rate = action.rates[int((time - event.start) / action.every + 1e-6) % len(action.rates)]
            if action.site:
                sides = ("up", "down") if action.side == "both" else (action.side,)
                state.change_site(action.site, **dict.fromkeys(sides, rate))
            else:
                state.change_links(action, lambda link: replace(link, rate=rate))


def _given(action: Set) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: getattr(action, name) for name in Impairments.model_fields if name in action.model_fields_set
    }
    if "rtt" in fields:
        fields["delay"] = fields.pop("rtt") / 2
    return fields


def _ramp(state: _State, action: Ramp, share: float) -> None:
    def between(start: float, end: float) -> float:
        return start + (end - start) * share

    if action.site:
        site = state.site(action.site)
        goals: Mapping[str, float | None] = {"up": action.up, "down": action.down}
        rates = {name: between(getattr(site, name), goal) for name, goal in goals.items() if goal is not None}
        state.change_site(action.site, **rates)
        return

    def change(link: Link) -> Link:
        delay = link.delay if action.delay is None else between(link.delay, action.delay)
        rate = link.rate if action.rate is None else between(state.line_rate(link), action.rate)
        loss = link.loss if action.loss is None else between(link.mean_loss, action.loss)
        return replace(link, delay=delay, rate=rate, loss=loss)

    state.change_links(action, change)


def _changes(event: Event) -> Iterator[float]:
    """When the event may change a state."""
    yield event.start
    yield event.stop
    match event.action:
        case Ramp(step=step):
            yield from _every(event, step)
        case Flap(away=away, back=back):
            for start, end in _stretches(event.start, event.stop, away, back):
                yield start
                yield end
        case Trace(every=every):
            yield from _every(event, every)


def _every(event: Event, step: float) -> Iterator[float]:
    for index in range(1, min(MOST_STATES + 1, math.ceil((event.stop - event.start) / step))):
        yield event.start + index * step


def _stretches(start: float, end: float, on: float | None, off: float | None) -> Iterator[tuple[float, float]]:
    if on is None or off is None:
        yield start, end
        return
    for index in range(min(MOST_STATES, math.ceil((end - start) / (on + off)))):
        begin = start + index * (on + off)
        if begin < end:
            yield begin, min(begin + on, end)
