"""The rendezvous model: how simulated workers form the next generation, and what that costs. Pure.

`harness.elastic.decision.decide`, which decides in a run, decides here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from harness.costmodel.fault_group import SimulatedGroup
from harness.costmodel.fault_steps import Loss
from harness.costmodel.fault_terms import FaultModelInputs, broken_off
from harness.elastic.decision import decide
from harness.elastic.returns import lets_in, steps_in
from harness.elastic.views import MAX_GENERATIONS, RETURN_SECONDS, Report, View


class RendezvousModel:
    """Takes the group from one view to the next."""

    def __init__(self, inputs: FaultModelInputs, group: SimulatedGroup) -> None:
        self._inputs, self._group = inputs, group

    def due(self) -> bool:
        """Whether a site outside may be let in now."""
        group = self._group
        if not group.there or group.step == 0 or not lets_in(self._inputs.plan, group.step):
            return False
        now = min(group.clocks(group.there))
        outside = (worker for rank, worker in enumerate(group.workers) if rank not in group.view.members)
        return any(
            worker.due <= group.step if worker.due is not None else worker.back is not None and worker.back <= now
            for worker in outside
        )

    def meet(self, loss: Loss | None) -> None:
        """Form the next generation: for a loss, or to let somebody in. Without success the group is `abandoned`."""
        group, inputs = self._group, self._inputs
        group.attempts += 1
        if group.attempts > MAX_GENERATIONS:
            group.abandoned = f"no progress in {MAX_GENERATIONS} generations"
            return
        noticed = loss.noticed if loss is not None else None
        step, begun = (loss.step, loss.begun) if loss is not None else (None, ())
        silent = {rank for rank in group.there if noticed is not None and group.workers[rank].silent_until > noticed}
        present = [rank for rank in group.there if rank not in silent]
        at = max([*group.clocks(present), *group.deaths(), noticed or 0.0])
        if noticed is not None:
            self._notice(noticed)
            if silent:
                at = max(at, min(noticed + inputs.grace, max(group.clocks(silent))))
        front = group.step + (noticed is not None)
        view, at = self._decide(present, at, at if noticed is None else noticed, front)
        if view is None:
            return
        if loss is not None and step is not None:
            dead = [rank for rank in group.view.members if rank not in group.there]
            group.repeated += broken_off(inputs, loss.broken, silent, dead, group.parted)
        self._part_with(view, at, silent, begun, front)
        for rank in view.members:
            self._adopt(rank, view, step if rank in begun else None)
        group.repeated += sum(group.sent.pop(done) for done in list(group.sent) if done > view.step)
        seconds = 0.0
        if view.lagging:
            transfers = tuple(inputs.catch_up(view.source, view.lagging, view.members))
            group.caught_up += sum(transfer.payload_bytes for transfer in transfers)
            seconds = inputs.exposed(transfers, True)
        end = at + inputs.rendezvous + 2 * inputs.round_trip + seconds
        for rank in view.members:
            group.workers[rank].clock = end
        if noticed is not None:
            group.recovery.append(end - noticed)
        group.view, group.step = view, view.step
        group.parted, group.under_way, group.cold = [], [], True

    def _notice(self, when: float) -> None:
        if earlier := [event for event in self._group.unnoticed if event <= when]:
            self._group.detection.append(when - max(earlier))
            self._group.unnoticed = [event for event in self._group.unnoticed if event > when]

    def _decide(self, present: Sequence[int], at: float, since: float, front: int) -> tuple[View | None, float]:
        """The coordinator's view, and when it is decided; None if the run cannot continue."""
        reports = {rank: self._report(rank, self._group.workers[rank].committed) for rank in present}
        outside = [rank for rank in range(len(self._group.workers)) if rank not in present]
        coming = {rank: back for rank in outside if (back := self._group.workers[rank].back) is not None}
        due = {rank for rank in coming if (step := self._group.workers[rank].due) is not None and step <= front}
        at = max([at, *(coming[rank] for rank in due)])
        while True:
            waiting = {r: self._report(r, -1) for r, back in coming.items() if back <= at and self._may_enter(r, due)}
            view = decide(self._group.view, reports, waiting, self._inputs.after_loss, self._inputs.survives)
            if view is not None:
                return view, at
            for rank, back in coming.items():  # nobody makes steps until those who are needed are back
                if rank not in due and self._group.workers[rank].due is not None:
                    coming[rank], due = max(back, since + self._group.workers[rank].away), due | {rank}
            later = [back for back in coming.values() if back > at]
            patience = RETURN_SECONDS if due else 0.0
            if not later or min(later) > since + self._inputs.timeout + patience:
                self._group.abandoned = f"ranks {sorted(present)} cannot continue without the others"
                return None, at
            at = min(later)

    def _may_enter(self, rank: int, due: Collection[int]) -> bool:
        return self._group.workers[rank].due is None or rank in due

    def _report(self, rank: int, committed: int) -> Report:
        suspects = tuple(sorted({b if a == rank else a for a, b in self._group.parted if rank in (a, b)}))
        checkpoints = tuple(self._group.workers[rank].checkpoints)
        evidence = tuple(culprit for victim, culprit in self._group.parted if victim == rank)
        return Report(
            rank=rank,
            step=self._group.step,
            committed=committed,
            suspects=suspects,
            evidence=evidence,
            checkpoints=checkpoints,
        )

    def _part_with(self, view: View, at: float, silent: set[int], begun: Sequence[int], front: int) -> None:
        """Who lives and is not taken along asks to be let in again; who has fallen is no member any more.

        Nobody's steps after a checkpoint count when the members go back to it.
        """
        for rank in self._group.view.members:
            worker = self._group.workers[rank]
            if worker.died is None and rank not in view.members:
                worker.back = max(at, worker.clock) if rank in silent else at
                if self._inputs.paced:
                    asleep = steps_in(worker.away, self._inputs.step_seconds) if rank in silent else 0
                    worker.due = max(front, worker.paused + asleep)
                worker.interrupted = rank in begun and rank not in silent
                if rank in silent:  # before its next step it hears that it has been left out
                    worker.made = [made for made in worker.made if made <= worker.paused]
            worker.died = None
        if view.rollback is not None:
            for rank, worker in enumerate(self._group.workers):
                if rank not in view.members or rank in view.lagging:
                    self._group.lose(worker, view.rollback)

    def _adopt(self, rank: int, view: View, interrupted: int | None) -> None:
        """What a member goes on from. interrupted: the step that it had begun and nobody finished."""
        worker = self._group.workers[rank]
        worker.back = worker.due = None
        if rank in view.lagging:  # its state is another's now
            self._group.lose(worker, worker.committed)
            self._group.lost += interrupted is not None or worker.interrupted
            worker.committed, worker.interrupted = view.committed, False
        elif view.rollback is not None:
            self._group.lose(worker, view.rollback)
            self._group.lost += interrupted is not None
            worker.committed = view.rollback
        elif interrupted is not None and self._inputs.after_loss == "redo":
            taken = any(rank in transfer.members for transfer in self._inputs.plan.at(interrupted))
            self._group.lost += taken  # the step is undone, and repeated
