"""The predicted cost of faults: the quantities of `harness.run.fault_cost.FaultCost`, before the run. Pure.

The run is simulated step by step with a clock for each worker. A faulty worker stops, stands still, is slow or is cut
off (`fault_steps`); the others notice where they next wait for it, and form a new generation (`fault_rendezvous`). What
follows from that (steps repeated, transfers broken off, states handed on) is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.costmodel.fault_group import SimulatedGroup
from harness.costmodel.fault_rendezvous import RendezvousModel
from harness.costmodel.fault_steps import StepModel
from harness.costmodel.fault_terms import FaultEvent, FaultModelInputs


@dataclass(frozen=True)
class PredictedFaultCost:
    """Fields as in `harness.run.fault_cost.FaultCost`. `abandoned`: why the run cannot continue, if it cannot."""

    generations: int
    tokens_lost: int
    bytes_repeated: int
    bytes_caught_up: int
    detection_seconds: tuple[float, ...]
    recovery_seconds: tuple[float, ...]
    wall_seconds: float
    abandoned: str = ""

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def simulate_faults(inputs: FaultModelInputs, events: Sequence[FaultEvent]) -> PredictedFaultCost:
    """The cost of `events` to the run."""
    group = SimulatedGroup.of(inputs)
    steps, rendezvous = StepModel(inputs, events, group), RendezvousModel(inputs, group)
    while group.step < inputs.plan.steps and not group.abandoned:
        if rendezvous.due():
            rendezvous.meet(None)
        elif (loss := steps.advance(group.step + 1)) is not None:
            rendezvous.meet(loss)
            if group.step == inputs.plan.steps:  # the last evaluation is repeated
                for rank in group.there:
                    group.workers[rank].clock += loss.evaluation
    for rank, worker in enumerate(group.workers):
        if rank not in group.view.members:  # what it did since it last synchronised went with it
            group.lose(worker, worker.committed)
    return PredictedFaultCost(
        generations=group.view.generation + 1,
        tokens_lost=group.lost * inputs.tokens_per_step,
        bytes_repeated=group.repeated,
        bytes_caught_up=group.caught_up,
        detection_seconds=tuple(group.detection),
        recovery_seconds=tuple(group.recovery),
        wall_seconds=max(group.workers[rank].clock for rank in group.view.members),
        abandoned=group.abandoned,
    )
