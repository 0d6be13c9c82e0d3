"""What happens to a WAN while it is used: a timeline of events, the same for the emulator and the simulator.

Times are seconds from the start of training. `netsim.states` turns the events into the ordered list of topologies
that hold one after the other. Cross-traffic and what happens to sites are
apart, since they are not properties of a link.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from netsim.errors import InputError
from netsim.events import Event, Flap, Place, Ramp, Trace

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
class WorkerEvent:
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

    def times(self) -> list[float]:
        """When the state of some link or site may change, ascending, without zero."""
        found = {round(time, 9) for event in self.events for time in _changes(event)}
        return sorted(found - {0.0})

    def cross_traffic(self) -> list[CrossTraffic]:
        """Every stretch of cross-traffic, by start."""
        found = []
        for event in self.events:
            if (traffic := event.traffic) is not None:
                for start, end in _stretches(event.start, event.stop, traffic.busy, traffic.idle):
                    found.append(CrossTraffic(traffic.source, traffic.target, traffic.rate, start, end))
        return sorted(found, key=lambda one: one.start)

    def site_events(self) -> list[WorkerEvent]:
        """What happens to workers, by time."""
        found = []
        for event in self.events:
            if event.pause is not None:
                found += [WorkerEvent(event.start, event.pause.site, "pause")]
                found += [WorkerEvent(event.stop, event.pause.site, "resume")]
            elif event.crash is not None:
                found.append(WorkerEvent(event.start, event.crash.site, "crash"))
            elif event.restart is not None:
                found.append(WorkerEvent(event.start, event.restart.site, "restart"))
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
