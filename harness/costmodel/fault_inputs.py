"""From a cell's declared faults to the inputs of `harness.costmodel.fault_model`. In the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from typing import Any

from algorithms.method import Method
from harness.costmodel.calibration import Recovery
from harness.costmodel.fault_model import PredictedFaultCost, simulate_faults
from harness.costmodel.fault_terms import FaultEvent, FaultModelInputs
from harness.elastic.views import GRACE_SECONDS, POLL_SECONDS
from harness.spec.run_spec import RunSpec
from harness.transport.limits import TICKS
from netsim.collectives import unsent_limit
from netsim.framing import bandwidth_delay_product
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.simulation import simulate
from netsim.states import states
from netsim.timeline import Timeline
from netsim.topology import Topology
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

# Without a calibration: a report waits half of the coordinator's interval to be read, and programs start in no time.
UNMEASURED = Recovery(meeting_seconds=POLL_SECONDS / 2, source="the coordinator's interval alone")


LEAST_SEND_BUFFER = 1 << 16  # bytes; the kernel's own default


@dataclass(frozen=True)
class FaultContext:
    """What the prediction of a cell's time has worked out already."""

    method: Method[Any]
    topology: Topology
    plan: Plan
    compute: Compute
    link_model: LinkModel
    choose: Callable[[Transfer], Algorithm]
    evaluation_seconds: float


def has_faults(spec: RunSpec, topology: Topology) -> bool:
    """Whether a fault is declared for any of the cell's workers."""
    return bool(spec.faults or topology.timeline.site_events())


def unpredictable(topology: Topology) -> str:
    """Why the cost of this topology's faults is not predicted; empty if it is."""
    if any(event.partition or event.flap for event in topology.timeline.events):
        return "who reaches whom across partitions and flapping links is not modelled"
    return ""


def cut_too_long(topology: Topology, timeout: float) -> str:
    """Why the time of a run whose links the timeline cuts is not predicted; empty if it is.

    timeout: seconds for which workers wait for each other, before they go on without those that they cannot reach.
    """
    since: dict[tuple[str, str], float] = {}
    for time, state in (*states(topology), (inf, topology)):
        for link in state.links:
            pair = link.source, link.target
            if link.mean_loss < 1 or time == inf:
                begun = since.pop(pair, time)
                if time - begun >= timeout:
                    return f"{pair[0]} cannot reach {pair[1]} for network.timeout_seconds: membership changes"
            else:
                since.setdefault(pair, time)
    return ""


def predict_fault_cost(spec: RunSpec, at: FaultContext, recovery: Recovery | None) -> PredictedFaultCost:
    """What the cell's faults, and what its timeline does to sites, are expected to cost."""
    inputs = model_inputs(spec, at, recovery or UNMEASURED)
    return simulate_faults(inputs, fault_events(spec, at.topology, at.plan.steps))


def fault_events(spec: RunSpec, topology: Topology, steps: int) -> tuple[FaultEvent, ...]:
    """Every fault of every worker: by step from the suite's faults, by second from the timeline."""
    found = [
        FaultEvent(fault.kind, rank, step, None, fault.lasts or fault.back_after, fault.factor or 1.0)
        for rank, site in enumerate(topology.sites)
        for step in range(1, steps + 1)
        for index, fault in enumerate(spec.faults)
        if fault.happens(index, spec.seed, site.name, step)
    ]
    ranks = {site.name: rank for rank, site in enumerate(topology.sites)}
    site_events = topology.timeline.site_events()
    for place, event in enumerate(site_events):
        if event.kind == "pause" or event.kind == "crash":
            ends = (later.at for later in site_events[place + 1 :] if later.site == event.site)
            end = next(ends, None)
            lasts = None if end is None else end - event.at
            found.append(FaultEvent(event.kind, ranks[event.site], None, event.at, lasts))
    return tuple(found)


def model_inputs(spec: RunSpec, at: FaultContext, recovery: Recovery) -> FaultModelInputs:
    method, shape, sites, seed = at.method, spec.model, at.plan.sites, spec.seed
    timeout = spec.network.timeout_seconds
    pairs = [(a.name, b.name) for a, b in at.topology.pairs()]
    streams = max((at.link_model.connections(at.topology, a, b) for a, b in pairs), default=1)
    return FaultModelInputs(
        plan=at.plan,
        after_loss=method.after_loss,
        survives=lambda members: bool(members) and method.survives(shape, sites, members, seed),
        catch_up=lambda root, lagging, present: method.catch_up(shape, sites, root, lagging, present, seed),
        algorithm=at.choose,
        exposed=exposure(at),
        step_seconds=max(at.compute.step_seconds),
        tokens_per_step=spec.train.batch * shape.sequence,
        evaluate_every=spec.train.evaluate_every,
        evaluation_seconds=at.evaluation_seconds,
        checkpoint_every=spec.train.checkpoint_every,
        checkpoint_seconds=recovery.checkpoint_seconds_per_byte * state_bytes(method.memory(shape, sites, 0, seed)),
        paced=spec.compute.step_seconds is not None,
        timeout=timeout + min(timeout / TICKS, 1.0) / 2,  # somebody looks so often
        round_trip=max((at.topology.rtt(a, b) for a, b in pairs), default=0.0),
        rendezvous=recovery.meeting_seconds,
        start=recovery.start_seconds,
        grace=GRACE_SECONDS,
        at_once=min(streams * unsent_limit(streams), _send_buffers(at.topology)),
    )


def _send_buffers(topology: Topology) -> int:
    """Bytes for one peer that the kernel takes before it is known that they are in vain: TCP lets a send buffer grow to
    twice the window, and one window more is acknowledged in the round trip until the news arrives. A window that has
    opened fills the path; the longest, fattest path of the topology counts.
    """
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    paths = (bandwidth_delay_product(topology.rate(*pair), topology.rtt(*pair)) for pair in pairs)
    return max(LEAST_SEND_BUFFER, 3 * max(paths, default=0))


def state_bytes(memory: Mapping[str, int]) -> int:
    """What a checkpoint holds of a worker's memory: all but the gradients."""
    return sum(size for component, size in memory.items() if component != "gradients")


def exposure(at: FaultContext) -> Callable[[tuple[Transfer, ...], bool], float]:
    """How long transfers that are released together make a step wait on the undisturbed network, by simulation."""
    calm = replace(at.topology, timeline=Timeline())
    step = max(at.compute.step_seconds)
    compute = replace(at.compute, jitter=0.0)

    @cache
    def seconds(transfers: tuple[Transfer, ...], cold: bool) -> float:
        steps = 1 + max((transfer.overlap for transfer in transfers), default=0)
        plan = Plan(at.plan.sites, steps, (Recurrence(transfers, 1, 1, 1),))
        link_model = replace(at.link_model, cold_start=cold and at.link_model.cold_start)
        outcome = simulate(plan, calm, compute, link_model=link_model, choose=at.choose)
        return max(0.0, outcome.wall_seconds - steps * step)

    return seconds
