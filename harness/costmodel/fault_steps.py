"""The step model: what faults do to a step of simulated workers, and who notices a loss when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.costmodel.fault_group import SimulatedGroup, SimulatedWorker, UnderWay
from harness.costmodel.fault_terms import Broken, FaultEvent, FaultModelInputs, touches
from harness.elastic.returns import steps_in
from netsim.traffic import among


@dataclass(frozen=True)
class Loss:
    """What a rendezvous is for. noticed: when, on the training clock; None if there is nobody to notice it.

    step: the step that it interrupted, with those who had `begun` it and the transfers that it broke off; None between
    steps. evaluation: seconds of the evaluation that it interrupted.
    """

    noticed: float | None
    step: int | None = None
    begun: tuple[int, ...] = ()
    broken: tuple[Broken, ...] = ()
    evaluation: float = 0.0


class StepModel:
    """Advances the group by one step, with a clock for each worker."""

    def __init__(self, inputs: FaultModelInputs, events: Sequence[FaultEvent], group: SimulatedGroup) -> None:
        self._inputs, self._events, self._group = inputs, events, group
        self._due: dict[tuple[int, int | None], list[int]] = {}  # events by rank and step; None: by the clock
        for index, event in enumerate(events):
            self._due.setdefault((event.rank, event.step), []).append(index)
        self._injected: set[int] = set()

    def advance(self, step: int) -> Loss | None:
        """All living members train in `step` and synchronise; the loss that they notice in it, if any."""
        inputs = self._inputs
        for rank in self._group.there:
            pace = self._inject(rank, step)
            self._group.workers[rank].clock += inputs.step_seconds * pace
        begun = [rank for rank in self._group.there if rank in inputs.plan.active(step)]
        if not self._group.there:
            self._group.step = step - 1
            return Loss(None)
        self._release(step)
        due = [each for each in self._group.under_way if each.due <= step]
        if (noticed := self._missed(due)) is not None:
            return Loss(noticed, step, tuple(begun), tuple(self._broken(each) for each in due))
        self._finish(due)
        released = inputs.plan.at(step)
        self._group.sent[step] = sum(among(transfer, self._group.view.members).payload_bytes for transfer in released)
        for rank in self._group.there:
            if any(rank in transfer.members for transfer in released):
                self._group.workers[rank].committed = step
            if rank in begun:
                self._group.workers[rank].made.append(step)
        self._group.step, self._group.attempts = step, 0
        return self._evaluate_and_save(step)

    def _inject(self, rank: int, step: int) -> float:
        """All faults of `rank` in this step. Returns the factor by which the step takes longer."""
        worker, pace = self._group.workers[rank], 1.0
        for index in (*self._due.get((rank, step), ()), *self._due.get((rank, None), ())):
            event = self._events[index]
            if event.kind == "straggle":
                pace *= event.factor
                continue
            soon = worker.clock + self._inputs.step_seconds
            if worker.died is not None or index in self._injected or (event.at is not None and event.at > soon):
                continue
            self._injected.add(index)
            when = max(worker.clock, event.at or 0.0)
            if event.at is None:  # what happens at a second is in no worker's log
                self._group.unnoticed.append(when)
            if event.kind == "crash":
                worker.died = when
                self._schedule_return(worker, event, when)
                self._group.lose(worker, worker.committed)
            elif event.kind == "pause":
                worker.clock += event.lasts or 0.0
                worker.silent_until, worker.paused, worker.away = worker.clock, step, event.lasts or 0.0
            elif others := [other for other in self._group.view.members if other != rank]:
                self._group.parted.append((others[0], rank))
        return pace

    def _schedule_return(self, worker: SimulatedWorker, crash: FaultEvent, when: float) -> None:
        worker.back = worker.due = None
        if crash.lasts is None:
            return
        if not self._inputs.paced or crash.step is None:
            worker.back = when + crash.lasts + self._inputs.start
            return
        due = crash.step + steps_in(crash.lasts, self._inputs.step_seconds)
        if due < self._inputs.plan.steps:  # its program starts while it is away
            worker.back, worker.due, worker.away = when + self._inputs.start, due, crash.lasts

    def _release(self, step: int) -> None:
        for transfer in self._inputs.plan.at(step):
            present = among(transfer, self._group.view.members)
            if len(present.members) > 1:
                released = max(
                    self._group.clocks(rank for rank in present.members if rank in self._group.there), default=0.0
                )
                self._group.under_way.append(UnderWay(step + transfer.overlap, present, released))

    def _missed(self, due: Sequence[UnderWay]) -> float | None:
        """When somebody first notices that another member of a transfer fails; None if all goes well."""
        inputs, found = self._inputs, []
        for each in due:
            transfer, algorithm = each.transfer, inputs.resolve(each.transfer)
            here = [rank for rank in transfer.members if rank in self._group.there]
            for other in transfer.members:
                died = self._group.workers[other].died
                if died is not None and died < each.released + self._duration(each):
                    found += self._group.clocks(rank for rank in here if touches(transfer, algorithm, rank, other))
            for pair in self._group.parted:
                if set(pair) <= set(here) and touches(transfer, algorithm, *pair):
                    found.append(min(self._group.clocks(pair)))
            if here and max(self._group.clocks(here)) > min(self._group.clocks(here)) + inputs.timeout:
                found.append(min(self._group.clocks(here)) + inputs.timeout)
        return min(found, default=None)

    def _broken(self, each: UnderWay) -> Broken:
        ends = {rank: self._group.workers[rank].died for rank in each.transfer.members}
        missed = (rank for rank, died in ends.items() if died is not None and died < each.released)
        return Broken(each.transfer, frozenset(missed))

    def _duration(self, each: UnderWay) -> float:
        """Of a transfer that runs beside later steps; one that its step waits for is never done before the step is."""
        if not each.transfer.overlap:
            return float("inf")
        return self._inputs.exposed((replace(each.transfer, overlap=0),), False)

    def _finish(self, due: Sequence[UnderWay]) -> None:
        """All members of what is due have it."""
        self._group.under_way = [each for each in self._group.under_way if each not in due]
        if not due:
            return
        ranks = sorted({rank for each in due for rank in each.transfer.members if rank in self._group.there})
        end = max(self._group.clocks(ranks)) + self._inputs.exposed(
            tuple(each.transfer for each in due), self._group.cold
        )
        self._group.cold = False
        for rank in ranks:
            self._group.workers[rank].clock = end

    def _evaluate_and_save(self, step: int) -> Loss | None:
        """What ends a step now and then, for all workers together and over the control network."""
        inputs, group = self._inputs, self._group
        evaluates = step % inputs.evaluate_every == 0 or step == inputs.plan.steps
        saves = bool(inputs.checkpoint_every) and step % inputs.checkpoint_every == 0 and step < inputs.plan.steps
        if not evaluates and not saves:
            return None
        spent = inputs.evaluation_seconds if evaluates else 0.0
        clocks = self._group.clocks(self._group.there)
        if len(group.there) < len(group.view.members):
            return Loss(min(clocks) + spent, evaluation=spent)
        if max(clocks) > min(clocks) + inputs.timeout:
            return Loss(min(clocks) + spent + inputs.timeout, evaluation=spent)
        for rank in group.there:
            worker = group.workers[rank]
            worker.clock = max(clocks) + spent + (inputs.checkpoint_seconds if saves else 0.0)
            if saves:
                worker.checkpoints = [*worker.checkpoints, step][-2:]
        return None
