"""The cost model at scale: a method of a scenario, evaluated but for the network.

A `Variant` fixes the method, its options and the number of sites; its plan is condensed once and evaluated for all
rates and RTTs at once (`netsim.simulated.closed_form`, equal to the simulator where both are exact).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from algorithms.method import Method, find
from algorithms.shape import ModelShape
from harness.costmodel.calibration import Calibration, Span
from harness.costmodel.exchange_variants import carried_by, layerwise, layerwise_backward_share, without_last_sync
from harness.costmodel.sites.failure_overhead import FailureOverhead, mtbf_of
from harness.costmodel.sites.site_memory import SiteMemory, site_memory
from harness.costmodel.sites.stragglers import Pace, pace_of
from harness.spec.model_checks import check_rank
from harness.spec.scenario import METHOD_AXES, MethodEntry, Scenario
from harness.spec.scenario_sites import EqualSites
from netsim.errors import InputError
from netsim.framing import goodput
from netsim.simulated.closed_form import Load, load_of, times
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_model import LinkModel
from netsim.topology import Transport
from netsim.traffic import Plan


@dataclass(frozen=True)
class Variant:
    """One method with its options at a number of sites; `axis`: what of the base it varies, if anything."""

    entry: MethodEntry
    sites: int
    axis: str = "base"

    @property
    def label(self) -> str:
        return self.entry.label or self.entry.method


@dataclass(frozen=True)
class Spent:
    """Seconds of a run by cause, as arrays over the sweep. compute: of the mean site.  waiting: of that site for slower
    ones.  exposed: communication.  failures: all that follows from them.
    """

    compute: Floats
    waiting: Floats
    exposed: Floats
    failures: Floats

    @property
    def total(self) -> Floats:
        return self.compute + self.waiting + self.exposed + self.failures

    def points(self) -> Iterator[tuple[float, float, float, float]]:
        """Of each point: compute, waiting, exposed, failures."""
        parts = (part.tolist() for part in (self.compute, self.waiting, self.exposed, self.failures))
        return zip(*parts, strict=True)


@dataclass(frozen=True)
class Projected:
    """A variant, evaluated but for the network. step_seconds: of the site that the others wait for.  fullest: the group
    of sites with the largest share of its memory in use, whose bytes `memory` has.  widest: the rate that the workers'
    own NICs carry, bit/s.  inside_byte_seconds: of the exchange within sites.
    """

    variant: Variant
    method: Method[Any]
    plan: Plan
    load: Load
    pace: Pace
    tokens: int
    parameters: int
    payload_bytes_per_worker: float
    transfer_bytes: Span
    memory: dict[str, int]
    host_memory: int
    fullest: EqualSites
    backward_share: float
    widest: float = inf
    inside_byte_seconds: float = 0.0
    overhead: FailureOverhead | None = None

    @property
    def step_seconds(self) -> float:
        return self.pace.slowest

    def spent(self, rate: Floats, rtt: Floats, link_model: LinkModel, faster: float = 1.0) -> Spent:
        """Over arrays of rates (bit/s) and RTTs (s)."""
        usable = np.minimum(rate, self.widest)
        within = replace(link_model, byte_seconds=link_model.byte_seconds + self.inside_byte_seconds)
        found = times(self.load, self.step_seconds / faster, usable, rtt, within, self.backward_share)
        compute = found.compute * (self.pace.mean / self.pace.slowest)
        failures = np.zeros_like(compute)
        if self.overhead is not None:
            failures = self.overhead.seconds(
                found.total, link_model.efficiency * goodput(1.0, Transport().mtu) / 8 * usable
            )
        return Spent(compute, found.compute - compute, found.communication, failures)

    def seconds(self, rate: Floats, rtt: Floats, link_model: LinkModel, faster: float = 1.0) -> tuple[Floats, Floats]:
        """Compute, and all else that the run takes, seconds, over arrays of rates (bit/s) and RTTs (s)."""
        found = self.spent(rate, rtt, link_model, faster)
        return found.compute, found.waiting + found.exposed + found.failures

    def utilisation(self, rate: Floats, rtt: Floats, link_model: LinkModel, faster: float = 1.0) -> Floats:
        found = self.spent(rate, rtt, link_model, faster)
        return found.compute / found.total

    def spent_at_base(self, scenario: Scenario, link_model: LinkModel) -> Spent:
        """At the scenario's own rate and RTT."""
        return self.spent(np.array(scenario.rate or 0.0), np.array(scenario.rtt or 0.0), link_model)

    @property
    def fits(self) -> bool:
        """Whether the memory of the site that is fullest suffices."""
        return sum(self.memory.values()) <= self.fullest.memory


def link_model_of(calibration: Calibration | None, framing: bool = True) -> LinkModel:
    """Constants for sites with machines of their own, connections warm (a run is long against their start).

    framing: whether packet headers take their part of the rate.
    """
    known = replace(calibration.machines_of_their_own, cold_start=False) if calibration else LinkModel()
    return known if framing else replace(known, efficiency=known.efficiency / goodput(1.0, Transport().mtu))


def plan_of(scenario: Scenario, entry: MethodEntry, method: Method[Any], sites: int, steps: int) -> Plan:
    """The method's plan with what the scenario says about exchanges. A server is one member more."""
    shape = scenario.shape_of(entry)
    plan = method.plan(shape, sites, steps)
    if not scenario.final_sync:
        plan = without_last_sync(plan)
    if scenario.exchange == "layerwise":
        plan = layerwise(plan, method, shape)
    return plan if entry.all_reduce == "auto" else carried_by(plan, entry.all_reduce)


def variants(scenario: Scenario) -> Iterator[Variant]:
    """The base of every method, then each axis but rate and RTT by itself."""
    for entry in scenario.methods:
        yield Variant(entry, scenario.sites)
        for sites in scenario.sweep.sites:
            if sites != scenario.sites:
                yield Variant(_fitting(scenario, entry, sites), sites, "sites")
        options = find(entry.method, entry.options, scenario.where).options
        for axis in METHOD_AXES:
            for value in getattr(scenario.sweep, axis):
                if getattr(options, axis, value) != value:
                    yield Variant(_with(entry, axis, value), scenario.sites, axis)


def _with(entry: MethodEntry, axis: str, value: int) -> MethodEntry:
    return entry.model_copy(update={"options": {**entry.options, axis: value}})


def _fitting(scenario: Scenario, entry: MethodEntry, sites: int) -> MethodEntry:
    """At another number of sites, experts keep their share of holders."""
    if (replication := entry.options.get("replication")) is None:
        return entry
    return _with(entry, "replication", max(1, round(replication * sites / scenario.sites)))


def project(scenario: Scenario, variant: Variant, steps: int | None = None) -> Projected:
    """Plan, compute time and memory of a variant. InputError where the method cannot be on so many sites.

    steps: instead of the scenario's.
    """
    entry, shape, sites = variant.entry, scenario.shape_of(variant.entry), variant.sites
    where = f"{scenario.where}: methods.{entry.label}"
    method = find(entry.method, entry.options, where)
    check_rank(method, shape, where)
    steps, batch = steps or entry.steps or scenario.steps, entry.batch or scenario.batch
    plan = plan_of(scenario, entry, method, sites, steps)
    groups = scenario.groups_of(sites)
    load = load_of(plan, LinkModel().chunking, slowness(groups, plan.sites))
    by_layer = scenario.exchange == "layerwise"
    memories = [memory_of(scenario, entry, method, shape, sites, load, group) for group in groups]
    fullest = max(range(len(groups)), key=lambda index: sum(memories[index].device.values()) / groups[index].memory)
    every = max(1.0, steps / max(1, load.syncs))
    seconds = [
        each + _offloading(group, memory, every)
        for each, group, memory in zip(scenario.step_times(entry, method, sites), groups, memories, strict=True)
    ]
    return Projected(
        variant=variant,
        method=method,
        plan=plan,
        load=load,
        pace=pace_of([group.count for group in groups], seconds, scenario.step_jitter, every),
        tokens=steps * batch * shape.sequence,
        parameters=shape.count(),
        payload_bytes_per_worker=plan.payload_bytes / sites,
        transfer_bytes=Span.over({t.size for r in plan.recurrences for t in r.transfers} or {0}),
        memory=memories[fullest].device,
        host_memory=max(sum(memory.host.values()) for memory in memories),
        fullest=groups[fullest],
        backward_share=layerwise_backward_share(shape.layers) if by_layer else scenario.backward_share(shape),
        widest=min(group.widest for group in groups),
        inside_byte_seconds=max(group.inside_byte_seconds for group in groups),
        overhead=_failure_overhead(scenario, method, shape, groups, load),
    )


def slowness(groups: Sequence[EqualSites], members: int) -> Floats | None:
    """(2, members): of each rank's uplink and downlink, how many times slower than the network's rate; None where none
    differs from it. A member beyond the sites is a server, with that rate."""
    if all(group.up == group.down == 1 for group in groups):
        return None
    found = np.ones((2, members))
    each = [(1 / group.up, 1 / group.down) for group in groups for _ in range(group.count)]
    found[:, : len(each)] = np.array(each).T
    return found


def memory_of(
    scenario: Scenario,
    entry: MethodEntry,
    method: Method[Any],
    shape: ModelShape,
    sites: int,
    load: Load,
    group: EqualSites,
) -> SiteMemory:
    """Bytes by component at the site of `group` that holds most."""
    sequences = (entry.batch or scenario.batch) / sites
    return site_memory(method, shape, sites, load, group.site, sequences, scenario.precision, scenario.state_dtypes)


def _offloading(group: EqualSites, memory: SiteMemory, every: float) -> float:
    """Seconds of a step for what crosses between the devices and their host, which nothing hides; a synchronisation,
    `every` so many steps, spread over them."""
    if group.site.host_link is None:
        return 0.0
    return (memory.moved_per_step + memory.moved_per_sync / every) * 8 / (group.site.host_link * group.site.devices)


def _failure_overhead(
    scenario: Scenario, method: Method[Any], shape: ModelShape, groups: Sequence[EqualSites], load: Load
) -> FailureOverhead | None:
    """InputError where failures come so fast that a method never ends."""
    if (failures := scenario.failures) is None:
        return None
    counts = tuple(group.count for group in groups)
    sites = sum(counts)
    rolls_back = method.after_loss == "rollback" or sites == 1
    # Of the ranks, the first may be the others' server; any other stands for the rest.
    first, rest = (
        rolls_back or not method.survives(shape, sites, tuple(rank for rank in range(sites) if rank != lost))
        for lost in (0, sites - 1)
    )
    needed = tuple(count * rest + (first - rest) * (index == 0) for index, count in enumerate(counts))
    mtbf = mtbf_of(failures, [group.site.devices for group in groups])
    period = getattr(method.options, "sync_every", None)  # of a fragment, too, where fragments take turns
    rounds = max(1.0, load.steps / period if period else load.syncs)
    state = 4.0 * method.shared(shape, sites)
    found = FailureOverhead(failures, counts, needed, mtbf, rounds, state)
    if not np.isfinite(found.seconds(np.ones(1), np.ones(1))).all():
        allowed = "failures rare enough for a checkpoint to be written between them"
        raise InputError(scenario.where, "failures", f"one every {found.mtbf_of_all:.4g} s", allowed)
    return found
