"""From what workers and network reported to a run's result. Pure; every rule that makes a run invalid is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.records.run_record import BUCKETS, Result
from harness.run.fault_cost import FaultCost
from harness.spec.resolved import ResolvedRun
from harness.worker.job import Summary

OVERRUN_SHARE = 0.01  # of paced slots, above which the run is marked


@dataclass(frozen=True)
class Observed:
    """What the runner saw of a run from outside."""

    run_id: str
    substrate: str
    engine: str
    wire_bytes: tuple[int, ...]  # sent on wan0 between the gates, by rank
    link_problems: tuple[str, ...]  # of the gate after the run, and of the delay daemons during it
    started_at: float  # seconds since the epoch
    resumed_from: int = 0  # step of the checkpoint that the run went on from
    link_marks: tuple[str, ...] = ()  # of the delay daemons
    partitions: tuple[float, ...] = ()  # when the timeline cut the network, seconds since the epoch


Costs = tuple[FaultCost, list[str]]  # the cost of faults, and what is wrong with the ledger


def assemble_result(
    run: ResolvedRun, summaries: Sequence[Summary], observed: Observed, costs: Costs | None = None
) -> Result:
    """The result; `why_invalid` lists every broken rule, `marks` (caveats) what a reader should know of a valid run.

    costs: with declared faults, when `summaries` may lack the ranks that were lost.
    """
    spec, plan = run.spec, run.plan
    steps = max(summary.steps for summary in summaries)
    payload = sum(summary.payload_bytes for summary in summaries)
    planned = plan.payload_bytes_until(steps)
    wall = max(summary.wall_seconds for summary in summaries)
    overruns = sum(summary.slot_overruns for summary in summaries)
    leaders = [summary for summary in summaries if summary.member == 0]  # who send
    heaviest = max(summaries, key=lambda summary: sum(summary.memory.values()))
    predicted = run.memory(heaviest.rank)

    why = list(observed.link_problems)
    for summary in summaries:
        if not summary.explained:
            lost, of = summary.unaccounted_seconds, summary.wall_seconds
            why.append(f"{summary.worker}: {lost:.2f} s of {of:.2f} s are in no time bucket")
    if costs is not None:
        why += costs[1]
    elif payload != planned:
        why.append(f"the ledger holds {payload} payload bytes, the plan {planned}")
    if costs is None and len({summary.final_loss for summary in summaries}) > 1:
        why.append("workers disagree about the evaluation loss")

    caveats = list(observed.link_marks)
    if observed.resumed_from:
        caveats.append(f"interrupted, and resumed from step {observed.resumed_from}")
    slots = sum(summary.steps for summary in summaries)
    if overruns > OVERRUN_SHARE * slots:
        caveats.append(f"{overruns} of {slots} paced slots were too short for this host's computation")
    if heaviest.memory != predicted:
        caveats.append("counted memory differs from the method's prediction")

    seconds = {name: fmean(summary.seconds[name] for summary in summaries) for name in BUCKETS}
    cost = costs[0] if costs else None
    paced = spec.compute.mode == "paced"
    return Result(
        id=observed.run_id,
        suite=spec.suite,
        label=spec.label,
        algorithm=spec.method_name,
        topology=spec.topology["name"],
        seed=spec.seed,
        sites=plan.sites,
        steps=steps,
        substrate=observed.substrate,
        engine=observed.engine,
        wall_seconds=wall,
        compute_seconds=seconds["compute"] + seconds["data"] + (seconds["pacing"] if paced else 0.0),
        communication_seconds=seconds["communication"],
        seconds=seconds,
        startup_seconds=max(0.0, min(summary.started_at for summary in summaries) - observed.started_at),
        tokens=cost.tokens_committed if cost else sum(summary.tokens for summary in summaries),
        final_loss=summaries[0].final_loss,
        target_loss=spec.train.target_loss,
        time_to_target_seconds=summaries[0].time_to_target_seconds,
        payload_bytes_per_worker=payload / len(leaders),
        planned_payload_bytes_per_worker=planned / len(leaders),
        wire_bytes_per_worker=fmean(observed.wire_bytes) + fmean(s.wire_bytes_before for s in leaders),
        memory_bytes=heaviest.memory,
        predicted_memory_bytes=predicted,
        peak_rss_bytes=max(summary.peak_rss_bytes for summary in summaries),
        slot_overruns=overruns,
        valid=not why,
        why_invalid=why,
        marks=caveats,
        faults=cost.faults if cost else None,
        generations=cost.generations if cost else None,
        tokens_committed=cost.tokens_committed if cost else None,
        tokens_lost=cost.tokens_lost if cost else None,
        bytes_repeated=cost.bytes_repeated if cost else None,
        bytes_caught_up=cost.bytes_caught_up if cost else None,
        detection_seconds=cost.detection_seconds if cost else None,
        recovery_seconds=cost.recovery_seconds if cost else None,
        absences=cost.absences if cost else None,
        return_seconds=cost.return_seconds if cost else None,
    )


def memory_record(summaries: Sequence[Summary]) -> dict[str, Any]:
    """memory.json: counted bytes by rank (and worker, where a site has several) and component."""
    return {
        "by_rank": {summary.key: summary.memory for summary in summaries},
        "peak_rss_bytes": {summary.key: summary.peak_rss_bytes for summary in summaries},
    }
