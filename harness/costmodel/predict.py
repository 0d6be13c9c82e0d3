"""What the simulator expects of a suite's cell: its wall time, its bytes, its memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from algorithms.method import find
from harness.costmodel.calibration import Calibration, Span
from harness.costmodel.fault_inputs import FaultContext, cut_too_long, has_faults, predict_fault_cost, unpredictable
from harness.costmodel.fault_model import PredictedFaultCost
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from netsim.collectives import select_algorithm, suited
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import Evaluation, simulate
from netsim.topology import Topology
from netsim.traffic import Algorithm, Plan

# A run's connections are new, and its workers go on when their kernels have what they send: even without a calibration.
COLD = LinkModel(cold_start=True, send_buffers=True)


@dataclass(frozen=True)
class Prediction:
    """Seconds, bytes. `why_not`: what is missing when there is no prediction of time. `fault_cost`: of declared
    faults; the bytes are then those of the undisturbed run. `communication_spread_seconds`: standard deviation of one
    run's communication where packets are lost.
    """

    payload_bytes: int
    memory_bytes: dict[str, int]
    wall_seconds: float | None = None
    communication_seconds: float | None = None
    communication_spread_seconds: float = 0.0
    evaluation_seconds: float | None = None
    extrapolated: bool = True
    why_not: str = ""
    fault_cost: PredictedFaultCost | None = None


def predict(
    spec: RunSpec, calibration: Calibration | None = None, steps: int | None = None, rank: int = 0
) -> Prediction:
    """The cell's run, ended after `steps` if it was stopped early. Memory is that of `rank`."""
    run = ResolvedRun.of(spec)
    method, topology = run.method, run.topology
    plan = run.plan.truncated(steps or spec.train.steps)
    known = Prediction(plan.payload_bytes, run.memory(rank))
    compute = _compute(spec, run.world, calibration)
    if compute is None:
        return replace(known, why_not="native computation: its step time is in no calibration file")
    link_model = replace(calibration.link_model, send_buffers=True) if calibration else COLD
    if spec.network.streams is not None:
        link_model = replace(link_model, streams=spec.network.streams)
    fixed = Algorithm(spec.network.all_reduce)
    choose = (
        partial(select_algorithm, topology) if fixed is Algorithm.AUTO else lambda transfer: suited(transfer, fixed)
    )
    evaluation = evaluation_seconds(spec, run.world, calibration)
    known = replace(known, extrapolated=calibration is None or not calibration.domain.covers(*reach(topology, plan)))
    if has_faults(spec, topology):
        if why := unpredictable(topology):
            return replace(known, why_not=why)
        at = FaultContext(method, topology, plan, compute, link_model, choose, evaluation)
        cost = predict_fault_cost(spec, at, calibration.recovery if calibration else None)
        wall = None if cost.abandoned else cost.wall_seconds
        return replace(known, wall_seconds=wall, fault_cost=cost, why_not=cost.abandoned)
    if why := cut_too_long(topology, spec.network.timeout_seconds):
        return replace(known, why_not=why)
    outcome = simulate(
        plan,
        topology,
        compute,
        link_model=link_model,
        choose=choose,
        evaluation=Evaluation(spec.train.evaluate_every, evaluation),
        seed=spec.seed,
    )
    return replace(
        known,
        wall_seconds=outcome.wall_seconds,
        communication_seconds=fmean(outcome.communication_seconds),
        communication_spread_seconds=outcome.communication_spread,
        evaluation_seconds=fmean(outcome.evaluation_seconds),
    )


def reach(topology: Topology, plan: Plan) -> tuple[Span, Span, int, Span]:
    """What a domain must cover: line rates, RTTs, sites, bytes of a transfer."""
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    sizes = {t.size for r in plan.recurrences if r.count for t in r.transfers} or {0}
    return (
        Span.over(topology.rate(a, b) for a, b in pairs) if pairs else Span(low=0, high=0),
        Span.over(topology.rtt(a, b) for a, b in pairs) if pairs else Span(low=0, high=0),
        len(topology.sites),
        Span.over(sizes),
    )


def evaluation_flops(spec: RunSpec, sites: int) -> float:
    """Forward FLOPs of one evaluation, all workers together: a third of training's."""
    tokens = spec.train.held_out_sequences * spec.model.sequence
    return find(spec.method, spec.options, spec.where).flops_per_token(spec.model, sites) / 3 * tokens


def evaluation_seconds(spec: RunSpec, sites: int, calibration: Calibration | None) -> float:
    """Seconds of one evaluation; 0 without a calibration, which first principles cannot replace."""
    if calibration is None:
        return 0.0
    rates = calibration.evaluation_seconds_per_flop
    return rates.get(spec.method, rates.get("", 0.0)) * evaluation_flops(spec, sites)


def _compute(spec: RunSpec, sites: int, calibration: Calibration | None) -> Compute | None:
    compute = spec.compute
    if compute.step_seconds is not None:
        overhead = calibration.step_overhead_seconds if calibration else 0.0
        # A site that trains in some of the steps takes so much of them on average.
        each = tuple(
            compute.of(site).local_steps * ((compute.seconds_at(site) or 0.0) + overhead) for site in spec.sites
        )
        return Compute(each, compute.backward_share)
    if compute.sites:
        return None
    step = calibration.native_step(spec, sites) if calibration else None
    if step is None:
        return None
    return Compute((step.seconds,) * sites, spec.compute.backward_share, step.spread)
