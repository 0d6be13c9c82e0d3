"""Rows of a projection: a variant over the sweep in closed form, or its base through SimPy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf
from statistics import fmean

import numpy as np

from harness.costmodel.calibration import FIRST_PRINCIPLES, Calibration, Span
from harness.costmodel.projected_row import Band, ProjectedRow
from harness.costmodel.projection import Projected, Variant, link_model_of, project
from harness.costmodel.sites.site_costs import cost_usd, device_hours, energy_kwh
from harness.spec.scenario import Scenario, Uncertainty
from netsim.collectives import Chunking
from netsim.errors import InputError
from netsim.simulated.closed_form import uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.fair_rates import Floats
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import simulate
from netsim.topology import Topology
from netsim.traffic import Plan

SIMULATED_TRANSFERS = 16  # of one step; more are merged before they are simulated
# Fewer and larger pieces than a run has: DDP on 30 unlike sites takes a fifth of the time, and differs by 2e-7.
SIMULATED_CHUNKING = Chunking(limit=8000)
# A band is what a coarser simulation gives at its ends, over what it gives as stated, times the row's total.
BAND_TRANSFERS, BAND_CHUNKING = 4, Chunking(limit=2000)
Parts = tuple[float, float, float, float]  # seconds: compute, waiting, exposed, failures


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
    spent = projected.spent(grid_rate, grid_rtt, link_model)
    best, _, worst = _band(projected, grid_rate, grid_rtt, link_model, off)
    points = zip(grid_rate.tolist(), grid_rtt.tolist(), spent.points(), best.tolist(), worst.tolist(), strict=True)
    return [_row(scenario, projected, calibration, r, t, at, Band(lo, hi)) for r, t, at, lo, hi in points]


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
    topology = scenario.topology or _topology(scenario, sites)
    plan, off = projected.plan.merged(SIMULATED_TRANSFERS), scenario.uncertainty
    link_model = replace(link_model_of(calibration, scenario.framing), chunking=SIMULATED_CHUNKING)
    groups = scenario.groups_of(sites)
    if plan.sites != sites or any(t.due for r in plan.recurrences for t in r.transfers):
        allowed = "the closed form, with exchange: layerwise and all_reduce: server"
        raise InputError(scenario.where, "", "--simulate", allowed)
    if projected.widest < inf or projected.inside_byte_seconds or any(g.site.offload != "none" for g in groups):
        allowed = "the closed form, with workers, worker_nic and offload"
        raise InputError(scenario.where, "", "--simulate or a topology", allowed)
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    slowest = min((topology.rate(a, b) for a, b in pairs), default=0.0)
    furthest = max((topology.rtt(a, b) for a, b in pairs), default=0.0)
    times_of = scenario.step_times(projected.variant.entry, projected.method, sites)
    steps = [each for group, each in zip(groups, times_of, strict=True) for _ in range(group.count)]

    def run(plan: Plan, link_model: LinkModel, faster: float = 1.0, wider: float = 1.0) -> Parts:
        compute = Compute(tuple(s / faster for s in steps), projected.backward_share, scenario.step_jitter)
        outcome = simulate(plan, topology.scaled(rates=wider), compute, link_model=link_model)
        wall, mean = outcome.wall_seconds, fmean(outcome.compute_seconds)
        failing = 0.0
        if projected.overhead is not None:
            goodput = link_model.goodput(wider * slowest, topology.transport)
            failing = float(projected.overhead.seconds(np.array(wall), np.array(goodput)))
        longest = max(outcome.compute_seconds)
        return mean, longest - mean, wall - longest, failing

    parts = run(plan, link_model)
    if scenario.topology is None:  # the closed form's band is as good, and instant
        found = _band(projected, np.array([scenario.rate]), np.array([scenario.rtt]), link_model, off)
        low, plain, high = (float(total[0]) for total in found)
    elif off.compute == off.rate == 0:
        low = plain = high = sum(parts)
    else:
        coarse = partial(run, plan.merged(BAND_TRANSFERS), replace(link_model, chunking=BAND_CHUNKING))
        ends = (1 + off.compute, 1 + off.rate), (1.0, 1.0), (1 / (1 + off.compute), 1 - off.rate)
        low, plain, high = (sum(coarse(faster, wider)) for faster, wider in ends)
    band = Band(sum(parts) * (low / plain), sum(parts) * (high / plain))
    evaluator = "simulated" if plan is projected.plan else "simulated, buckets merged"
    return _row(scenario, projected, calibration, slowest, furthest, parts, band, evaluator)


def _topology(scenario: Scenario, sites: int) -> Topology:
    """The scenario's sites at its base rate and RTT."""
    rate = scenario.rate or 0.0
    plain = uniform_topology(sites, rate, scenario.rtt or 0.0)
    rates = [(group.up, group.down) for group in scenario.groups_of(sites) for _ in range(group.count)]
    own = (replace(site, up=rate * up, down=rate * down) for site, (up, down) in zip(plain.sites, rates, strict=True))
    return replace(plain, sites=tuple(own))


def _row(
    scenario: Scenario,
    projected: Projected,
    calibration: Calibration | None,
    rate: float,
    rtt: float,
    parts: Parts,
    band: Band,
    evaluator: str = "closed form",
) -> ProjectedRow:
    variant, memory, total = projected.variant, projected.memory, sum(parts)
    compute, waiting, exposed, failures = parts
    needed = sum(memory.values())
    inside = calibration is not None and calibration.domain.covers(
        Span(low=rate, high=rate), Span(low=rtt, high=rtt), variant.sites, projected.transfer_bytes
    )
    sent, options = projected.payload_bytes_per_worker, projected.method.options
    groups, prices = scenario.groups_of(variant.sites), scenario.prices
    energy = energy_kwh(groups, prices, total)
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
        waiting_seconds=waiting,
        communication_seconds=exposed,
        failure_seconds=failures,
        total_seconds=total,
        compute_utilisation=compute / total,
        memory_bytes_per_worker=needed,
        memory=memory,
        host_memory_bytes=projected.host_memory,
        site_memory_bytes=projected.fullest.memory,
        fits=projected.fits,
        error_band=_widened(band, exposed, calibration),
        extrapolated=not inside,
        basis=FIRST_PRINCIPLES if calibration is None else f"calibration {calibration.name}",
        evaluator=evaluator,
        device_hours=device_hours(groups, total),
        energy_kwh=energy,
        cost_usd=cost_usd(groups, prices, total, variant.sites * sent, energy),
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
