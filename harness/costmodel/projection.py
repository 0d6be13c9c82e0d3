"""The cost model at scale: a scenario's methods over its sweep, as rows.

A `Variant` fixes the method, its options and the number of sites; its plan is condensed once and evaluated for all
rates and RTTs at once (`netsim.simulated.closed_form`, equal to the simulator where both are exact). A topology with
different sites, or `simulate`, goes through SimPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from algorithms.method import Method, find
from algorithms.shape import ModelShape
from harness.costmodel.calibration import FIRST_PRINCIPLES, Calibration, Span
from harness.costmodel.exchange_variants import carried_by, layerwise, layerwise_backward_share, without_last_sync
from harness.costmodel.projected_row import Band, ProjectedRow
from harness.costmodel.site_memory import site_memory
from harness.spec.scenario import METHOD_AXES, MethodEntry, Scenario, Uncertainty, check_rank
from netsim.collectives import Chunking
from netsim.errors import InputError
from netsim.framing import goodput
from netsim.simulated.closed_form import Load, load_of, times, uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.flows import Floats
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import simulate
from netsim.topology import Transport
from netsim.traffic import Plan

SIMULATED_TRANSFERS = 16  # of one step; more are merged before they are simulated
# Fewer and larger pieces than a run has: DDP on 30 unlike sites takes a fifth of the time, and differs by 2e-7.
SIMULATED_CHUNKING = Chunking(limit=8000)


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
class Projected:
    """A variant, evaluated but for the network."""

    variant: Variant
    method: Method[Any]
    plan: Plan
    load: Load
    step_seconds: float
    tokens: int
    parameters: int
    payload_bytes_per_worker: float
    transfer_bytes: Span
    memory: dict[str, int]
    backward_share: float

    def seconds(self, rate: Floats, rtt: Floats, link_model: LinkModel, faster: float = 1.0) -> tuple[Floats, Floats]:
        """Compute and exposed communication, seconds, over arrays of rates (bit/s) and RTTs (s)."""
        found = times(self.load, self.step_seconds / faster, rate, rtt, link_model, self.backward_share)
        return found.compute, found.communication

    def utilisation(self, rate: Floats, rtt: Floats, link_model: LinkModel) -> Floats:
        compute, communication = self.seconds(rate, rtt, link_model)
        return compute / (compute + communication)


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


def project(scenario: Scenario, variant: Variant) -> Projected:
    """Plan, compute time and memory of a variant. InputError where the method cannot be on so many sites."""
    entry, shape, sites = variant.entry, scenario.shape_of(variant.entry), variant.sites
    where = f"{scenario.where}: methods.{entry.label}"
    method = find(entry.method, entry.options, where)
    check_rank(method, shape, where)
    steps, batch = entry.steps or scenario.steps, entry.batch or scenario.batch
    plan = plan_of(scenario, entry, method, sites, steps)
    load = load_of(plan, LinkModel().chunking)
    by_layer = scenario.exchange == "layerwise"
    return Projected(
        variant=variant,
        method=method,
        plan=plan,
        load=load,
        step_seconds=scenario.seconds_per_step(entry, method, sites),
        tokens=steps * batch * shape.sequence,
        parameters=shape.count(),
        payload_bytes_per_worker=plan.payload_bytes / sites,
        transfer_bytes=Span.over({t.size for r in plan.recurrences for t in r.transfers} or {0}),
        memory=memory_of(scenario, entry, method, shape, sites, load),
        backward_share=layerwise_backward_share(shape.layers) if by_layer else scenario.backward_share(shape),
    )


def memory_of(
    scenario: Scenario, entry: MethodEntry, method: Method[Any], shape: ModelShape, sites: int, load: Load
) -> dict[str, int]:
    """Bytes by component at the site that holds most."""
    sequences = min(
        scenario.site.devices * scenario.site.micro_batch, max(1, round((entry.batch or scenario.batch) / sites))
    )
    return site_memory(method, shape, sites, load, scenario.precision, sequences, scenario.site.recompute)


def rows_of(
    scenario: Scenario, variant: Variant, calibration: Calibration | None, exact: bool = False
) -> list[ProjectedRow]:
    """The variant over all rates and RTTs of the sweep. A variant that is impossible (replication that does not
    divide, say) has no rows. exact: through SimPy instead of the closed form, at the base rate and RTT only."""
    try:
        projected = project(scenario, variant)
    except InputError:
        if variant.axis == "base":
            raise
        return []
    if scenario.topology is not None or exact:
        return [_simulated(scenario, projected, calibration)]
    assert scenario.rate is not None
    assert scenario.rtt is not None
    rates = np.array(sorted({scenario.rate, *scenario.sweep.rate}))
    rtts = np.array(sorted({scenario.rtt, *scenario.sweep.rtt}))
    grid_rate, grid_rtt = (a.ravel() for a in np.meshgrid(rates, rtts, indexing="ij"))
    link_model, off = link_model_of(calibration, scenario.framing), scenario.uncertainty
    compute, communication = projected.seconds(grid_rate, grid_rtt, link_model)
    best, _, worst = _band(projected, grid_rate, grid_rtt, link_model, off)
    return [
        _row(scenario, projected, calibration, float(r), float(t), float(c), float(x), Band(float(lo), float(hi)))
        for r, t, c, x, lo, hi in zip(grid_rate, grid_rtt, compute, communication, best, worst, strict=True)
    ]


def _band(
    projected: Projected, rate: Floats, rtt: Floats, link_model: LinkModel, off: Uncertainty
) -> tuple[Floats, Floats, Floats]:
    """Total seconds if the inputs are better than stated by their uncertainty, as stated, and worse."""

    def total(faster: float, wider: float) -> Floats:
        found: Floats = np.add(*projected.seconds(rate * wider, rtt, link_model, faster))
        return found

    return total(1 + off.compute, 1 + off.rate), total(1.0, 1.0), total(1 / (1 + off.compute), 1 - off.rate)


def _simulated(scenario: Scenario, projected: Projected, calibration: Calibration | None) -> ProjectedRow:
    """Through SimPy, on the scenario's topology or at its base rate and RTT."""
    sites = projected.variant.sites
    topology = scenario.topology or uniform_topology(sites, scenario.rate or 0.0, scenario.rtt or 0.0)
    plan, off = projected.plan.merged(SIMULATED_TRANSFERS), scenario.uncertainty
    link_model = replace(link_model_of(calibration, scenario.framing), chunking=SIMULATED_CHUNKING)
    if plan.sites != sites or any(t.due for r in plan.recurrences for t in r.transfers):
        allowed = "the closed form, with exchange: layerwise and all_reduce: server"
        raise InputError(scenario.where, "", "--simulate", allowed)

    def run(faster: float = 1.0, wider: float = 1.0) -> tuple[float, float]:
        scaled = topology.scaled(rates=wider)
        compute = Compute((projected.step_seconds / faster,) * sites, projected.backward_share)
        outcome = simulate(plan, scaled, compute, link_model=link_model)
        return fmean(outcome.compute_seconds), outcome.wall_seconds

    computing, wall = run()
    if scenario.topology is None:  # the closed form's band is as good, and instant
        low, plain, high = _band(projected, np.array([scenario.rate]), np.array([scenario.rtt]), link_model, off)
        band = Band(wall * float(low[0] / plain[0]), wall * float(high[0] / plain[0]))
    else:
        band = Band(run(1 + off.compute, 1 + off.rate)[1], run(1 / (1 + off.compute), 1 - off.rate)[1])
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    slowest = min((topology.rate(a, b) for a, b in pairs), default=0.0)
    furthest = max((topology.rtt(a, b) for a, b in pairs), default=0.0)
    evaluator = "simulated" if plan is projected.plan else "simulated, buckets merged"
    return _row(scenario, projected, calibration, slowest, furthest, computing, wall - computing, band, evaluator)


def _row(
    scenario: Scenario,
    projected: Projected,
    calibration: Calibration | None,
    rate: float,
    rtt: float,
    compute: float,
    communication: float,
    band: Band,
    evaluator: str = "closed form",
) -> ProjectedRow:
    variant, memory, total = projected.variant, projected.memory, compute + communication
    needed = sum(memory.values())
    inside = calibration is not None and calibration.domain.covers(
        Span(low=rate, high=rate), Span(low=rtt, high=rtt), variant.sites, projected.transfer_bytes
    )
    sent, options = projected.payload_bytes_per_worker, projected.method.options
    energy = _energy_kwh(scenario, variant.sites, total)
    return ProjectedRow(
        algorithm=variant.entry.method,
        label=variant.label,
        axis=variant.axis,
        model=scenario.shape_of(variant.entry).name,
        parameters=projected.parameters,
        sites=variant.sites,
        rate_gbit=rate / 1e9,
        rtt_ms=1e3 * rtt,
        sync_every=getattr(options, "sync_every", None),
        replication=getattr(options, "replication", None),
        rank=getattr(options, "rank", None),
        steps=projected.plan.steps,
        tokens=projected.tokens,
        syncs=projected.load.syncs,
        step_seconds=projected.step_seconds,
        payload_bytes_per_worker=sent,
        compute_seconds=compute,
        communication_seconds=communication,
        total_seconds=total,
        compute_utilisation=compute / total,
        memory_bytes_per_worker=needed,
        memory=memory,
        site_memory_bytes=scenario.site_memory,
        fits=needed <= scenario.site_memory,
        error_band=_widened(band, communication, calibration),
        extrapolated=not inside,
        basis=FIRST_PRINCIPLES if calibration is None else f"calibration {calibration.name}",
        evaluator=evaluator,
        device_hours=variant.sites * scenario.site.devices * (total / 3600),
        energy_kwh=energy,
        cost_usd=_cost_usd(scenario, variant.sites, total, sent, energy),
    )


def _widened(band: Band, communication: float, calibration: Calibration | None) -> Band:
    """The band with the calibration's own error: of exposed communication, on runs that its fit did not see; where that
    has not been measured, of wall time on the runs of the fit."""
    if calibration is None:
        return band
    if (error := calibration.held_out) is not None:
        return Band(
            max(0.0, band.low_seconds - error.max * communication), band.high_seconds + error.max * communication
        )
    return Band(band.low_seconds * (1 - calibration.error.max), band.high_seconds * (1 + calibration.error.max))


def _energy_kwh(scenario: Scenario, sites: int, total: float) -> float | None:
    """Devices draw their board power all the time, waiting or not."""
    if scenario.device.watts is None:
        return None
    overhead = scenario.prices.power_usage_effectiveness if scenario.prices else 1.0
    return sites * scenario.site.devices * (total / 3600) * scenario.device.watts / 1000 * overhead


def _cost_usd(scenario: Scenario, sites: int, total: float, sent: float, energy: float | None) -> float | None:
    """Money, where prices are given. sent: bytes per worker."""
    prices = scenario.prices
    if prices is None:
        return None
    hourly = prices.device_hour if prices.device_hour is not None else scenario.device.price_per_hour
    cost = (prices.gigabyte_sent or 0.0) * sites * sent / 1e9
    if hourly is not None:
        cost += sites * scenario.site.devices * (total / 3600) * hourly
    if prices.kilowatt_hour is not None and energy is not None:
        cost += prices.kilowatt_hour * energy
    return cost
