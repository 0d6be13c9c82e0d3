"""What holds on a WAN from when on: the ordered list of topologies that a timeline makes of one.

A severed link loses every packet (loss 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from netsim.documents import validate
from netsim.events import Event, Flap, Partition, Place, Ramp, Set, Trace
from netsim.links import Impairments, Link, Site
from netsim.queue_kinds import keep_kinds
from netsim.timeline import Timeline, timeline_of
from netsim.topology import Topology, queue_changes


def states(topology: Topology) -> list[tuple[float, Topology]]:
    """What holds from when on; the first from 0. States that equal the one before are left out."""
    found = [(0.0, state_at(topology, 0.0))]
    for time in topology.timeline.times():
        state = state_at(topology, time)
        if state != found[-1][1]:
            found.append((time, state))
    return found


def state_at(topology: Topology, time: float) -> Topology:
    """The topology that holds at `time`, without its timeline."""
    state, events = _State(topology), topology.timeline.events
    healed = max((e.start for e in events if e.heal and e.start <= time), default=-math.inf)
    for event in events:
        if event.start <= time + 1e-9:
            _apply(state, event, time, healed)
    return state.topology()


def changed(topology: Topology, changes: Sequence[Mapping[str, Any]], where: str) -> Topology:
    """The topology after `changes`, each as a `set` of a timeline is written; without its timeline.

    Raises InputError, which names `where`, for a change that is none.
    """
    events = [validate(Event, {"at": "0 s", "set": dict(change)}, where) for change in changes]
    timeline = timeline_of(events, [site.name for site in topology.sites], where)
    keep_kinds(queue_changes(topology, events), where)
    return state_at(replace(topology, timeline=timeline), 0.0)


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
            series = action.rates or action.delays
            value = series[int((time - event.start) / action.every + 1e-6) % len(series)]
            if action.delays:
                state.change_links(action, lambda link: replace(link, delay=value))
            elif action.site:
                sides = ("up", "down") if action.side == "both" else (action.side,)
                state.change_site(action.site, **dict.fromkeys(sides, value))
            else:
                state.change_links(action, lambda link: replace(link, rate=value))


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
