"""What a browser needs to evaluate the closed form: condensed plans of every variant, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import isfinite, prod
from typing import Any

from algorithms.method import find
from harness.costmodel.projection import Projected, Variant, project, variants
from harness.costmodel.sites.failure_overhead import FailureOverhead
from harness.spec.scenario import METHOD_AXES, MethodEntry, Scenario
from netsim.errors import InputError
from netsim.simulated.load import Calendar, Load, Pattern, Phase, QueuedTransfer

AXES = ("sites", *METHOD_AXES)
MOST = 150  # variants of one method; with more combinations, each axis is varied by itself

Json = dict[str, Any]


@dataclass(frozen=True)
class PageVariant:
    """at: the value on each axis, None where the method has none.  own: the axes on which it is as in the scenario."""

    label: str
    at: dict[str, int | None]
    own: tuple[str, ...]
    projected: Projected

    def to_json(self) -> Json:
        one = self.projected
        return {
            "label": self.label,
            "at": self.at,
            "own": self.own,
            "step": one.step_seconds,
            "busy": one.pace.mean / one.pace.slowest,
            "widest": one.widest if isfinite(one.widest) else None,
            "inside": one.inside_byte_seconds,
            "failing": None if one.overhead is None else _failing(one.overhead),
            "backward": one.backward_share,
            "tokens": one.tokens,
            "bytes": one.payload_bytes_per_worker,
            "memory": sum(one.memory.values()),
            "fits": one.fits,
            "syncs": one.load.syncs,
            "load": load_json(one.load),
        }


def page_variants(scenario: Scenario, advance: Callable[[], None] = lambda: None) -> Iterator[PageVariant]:
    """Every method at every combination of the sweep's sites, periods, replications and ranks that it can have."""
    for entry in scenario.methods:
        for variant, own in _combined(scenario, entry):
            advance()
            try:
                projected = project(scenario, variant)
            except InputError:  # a replication that does not divide, say
                continue
            options = projected.method.options
            at: dict[str, int | None] = {"sites": variant.sites}
            at |= {axis: getattr(options, axis, None) for axis in METHOD_AXES}
            yield PageVariant(variant.label, at, own, projected)


def _combined(scenario: Scenario, entry: MethodEntry) -> list[tuple[Variant, tuple[str, ...]]]:
    """With the axes on which each is as in the scenario."""
    alone = [v for v in variants(scenario) if v.label == (entry.label or entry.method)]
    options = find(entry.method, entry.options, scenario.where).options
    swept = [axis for axis in METHOD_AXES if getattr(options, axis, None) is not None and getattr(scenario.sweep, axis)]
    axes: list[list[int | None]] = [[None, *getattr(scenario.sweep, axis)] for axis in swept]
    by_sites = {v.sites: v.entry for v in alone if v.axis in ("base", "sites")}
    if len(by_sites) * prod(map(len, axes)) > MOST:
        return [(v, tuple(axis for axis in AXES if axis != v.axis)) for v in alone]
    found = []
    for sites, at_sites in by_sites.items():
        for values in product(*axes):
            given = {axis: value for axis, value in zip(swept, values, strict=True) if value is not None}
            changed = at_sites.model_copy(update={"options": {**at_sites.options, **given}})
            found.append((Variant(changed, sites, "page"), tuple(axis for axis in AXES if axis not in given)))
    return found


def _failing(overhead: FailureOverhead) -> Json:
    failures = overhead.failures
    return {
        "groups": list(zip(overhead.counts, overhead.needed, overhead.mtbf, strict=True)),
        "restart": failures.restart,
        "detection": failures.detection,
        "checkpoint": failures.checkpoint,
        "interval": failures.interval,
        "rounds": overhead.rounds,
        "state": overhead.state,
    }


def load_json(load: Load) -> Json:
    calendar = None if load.calendar is None else _calendar(load.calendar)
    return {"steps": load.steps, "patterns": [_pattern(each) for each in load.patterns], "calendar": calendar}


def _pattern(pattern: Pattern) -> Json:
    return {"count": pattern.count, "overlap": pattern.overlap, "phases": [_phase(each) for each in pattern.phases]}


def _phase(phase: Phase) -> Json:
    together = phase.together
    return {
        "jobs": [_job(each) for each in phase.jobs],
        "together": None if together is None else _job(together),
        "floor": phase.floor,
        "transfers": phase.transfers,
        "size": phase.size,
    }


def _job(job: QueuedTransfer) -> Json:
    found = {"ready": job.ready, "due": job.due, "bytes": job.hop_bytes, "hops": job.hops, "piece": job.piece}
    return {**found, "tail": job.tail}


def _calendar(calendar: Calendar) -> Json:
    """Its repeating part once."""
    repeated = (calendar.steps >= calendar.first + calendar.period) & (calendar.steps <= calendar.last)
    if not calendar.period:
        repeated[:] = False
    tail = ~repeated & (calendar.steps > calendar.last) & (calendar.steps >= calendar.first + calendar.period)
    head = ~repeated & ~tail
    parts = {
        name: {"steps": calendar.steps[part].tolist(), "which": calendar.which[part].tolist()}
        for name, part in (("head", head), ("tail", tail))
    }
    return {**parts, "kinds": calendar.kinds, "period": calendar.period, "first": calendar.first, "last": calendar.last}
