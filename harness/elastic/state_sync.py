"""Bringing a worker to the state that a generation starts from: undo, roll back, catch up. In the trainer process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.elastic.step_log import StepLog
from harness.elastic.views import Report, View
from harness.records.logs import WorkerLog
from harness.transport.wan_exchange import WanExchange
from harness.worker.resume import save, valid_steps
from harness.worker.training import Training


class StateSync:
    """How this worker's state relates to the group's, and every change of it that is not a step of training.

    committed: the last step with a synchronisation that this worker has the result of; -1 while it is outside.
    """

    def __init__(
        self, training: Training, steps: StepLog, log: WorkerLog, rollback_of: Callable[[int], int | None]
    ) -> None:
        self._training, self._steps, self._log, self._rollback_of = training, steps, log, rollback_of
        self.committed = 0
        self._kept = 0  # what was committed when this worker was left out, or when its process before ended
        self._last_member = 0  # the last generation that it was a member of
        self._interrupted = False  # whether the step after progress.step has been begun
        self._tokens_before = 0  # of the step that was begun last
        self._snapshot: tuple[int, int, dict[str, Tensor]] | None = None  # step, tokens, model and worker

    def report(self, suspects: tuple[int, ...] = ()) -> Report:
        """What this worker brings to a rendezvous."""
        checkpoints = valid_steps(self._training.job.checkpoint_owner)
        return Report(
            rank=self._training.job.rank,
            step=self._training.progress.step,
            committed=self.committed,
            interrupted=self._interrupted,
            restarts=self._training.job.restarts,
            suspects=suspects,
            checkpoints=tuple(sorted(checkpoints)),
        )

    # --- around a step ------------------------------------------------------------------------------------------------

    def begin_step(self, step: int) -> None:
        """Keep what `step` starts from, where the method redoes a step whose synchronisation fails."""
        training = self._training
        if self._takes_part(step) and training.method.after_loss == "redo":
            with training.watch.bucket("checkpoint"):
                state = {f"model.{name}": p.detach() for name, p in training.model.named_parameters()}
                state |= training.worker.state()
                self._snapshot = step, training.progress.tokens, {n: t.clone() for n, t in state.items()}
        self._tokens_before, self._interrupted = training.progress.tokens, True

    def synchronised(self, step: int) -> None:
        """The step's transfers are done."""
        if self._takes_part(step):
            self.committed = step

    def end_step(self) -> None:
        self._interrupted = False

    def _takes_part(self, step: int) -> bool:
        return any(self._training.job.rank in transfer.members for transfer in self._training.plan.at(step))

    # --- between generations ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """This worker is no longer a member."""
        self._kept, self.committed = self.committed, -1

    def adopt(self, view: View, wan: WanExchange) -> None:
        """Go to the state that the view starts from. Raises PeerError when a member fails meanwhile."""
        training, lagging = self._training, self._training.job.rank in view.lagging
        training.worker.forget()
        with self._counting_lost_tokens():
            if view.rollback is not None and not lagging:
                self._roll_back(view.rollback)
            elif self._interrupted and not lagging:
                self._undo()
            if view.lagging:
                self._catch_up(view, wan)
        if view.rollback is not None and training.method.after_loss != "rollback":
            self._snapshot = None

    @contextmanager
    def _counting_lost_tokens(self) -> Iterator[None]:
        """Log what is lost inside, also if catching up fails after something was undone."""
        progress, before = self._training.progress, self._training.progress.tokens
        computed = self._interrupted and before > self._tokens_before
        step, tokens_before = progress.step + 1, self._tokens_before
        try:
            yield
        finally:
            if before > progress.tokens:
                self._log.add("tokens lost", tokens=before - progress.tokens, step=progress.step)
                if computed and progress.tokens <= tokens_before:
                    self._steps.give_up_interrupted(step, before)

    def became_member(self, generation: int) -> None:
        """The generation is connected and of one state."""
        self._last_member = generation

    @torch.no_grad()
    def _undo(self) -> None:
        """Back to the start of the step that was interrupted."""
        training, step = self._training, self._training.progress.step + 1
        if self._snapshot is not None and self._snapshot[0] == step:
            _, training.progress.tokens, saved = self._snapshot
            for name, parameter in training.model.named_parameters():
                parameter.copy_(saved[f"model.{name}"])
            training.worker.load({name: t.clone() for name, t in saved.items() if not name.startswith("model.")})
        elif training.method.after_loss == "rollback":  # whose step changes nothing before its exchange is over
            training.progress.tokens = self._steps.tokens()
        self._interrupted = False

    def _roll_back(self, step: int) -> None:
        then, now = self._training.restore(step), self._training.progress
        # Time and bytes go on, only the training goes back.
        now.step, now.tokens, now.final_loss = step, then.tokens, then.final_loss
        now.time_to_target = then.time_to_target
        self.committed, self._interrupted = step, False
        self._steps.give_up_after(step)
        self._log.add("rolled back", step=step)

    def _catch_up(self, view: View, wan: WanExchange) -> None:
        """From the source's state to those that lag, over the WAN and in the ledger."""
        worker, progress = self._training.worker, self._training.progress
        transfers = worker.catch_up(view.source, view.lagging, view.members)
        wan.run(view.step, transfers)
        if self._training.job.rank not in view.lagging:
            return
        worker.take_over(transfers)
        self._give_up_own(view)
        progress.step, self.committed, self._interrupted = view.step, view.committed, False
        self._log.add("caught up", step=view.step, bytes=sum(transfer.size for transfer, _ in transfers))

    def _give_up_own(self, view: View) -> None:
        """This worker's state is another's now: lost is what it had done since it last synchronised, or since a
        checkpoint that others have gone back to in the meantime.
        """
        missed = range(self._last_member + 1, view.generation + 1)
        rollbacks = [step for generation in missed if (step := self._rollback_of(generation)) is not None]
        own = self._kept if self.committed < 0 else self.committed
        self._steps.give_up_after(min([own, *rollbacks]))
        self._training.progress.tokens = self._steps.tokens()

    # --- checkpoints and restarts -------------------------------------------------------------------------------------

    def save_initial(self, payload_bytes: Callable[[], int]) -> None:
        """The checkpoint to fall back to before the first regular one, where a loss may need one."""
        training = self._training
        if training.method.after_loss != "rollback" and self._any_site_may_be_lost():
            return
        with training.watch.bucket("checkpoint"):
            if not valid_steps(training.job.checkpoint_owner):
                save(training.job.checkpoint_owner, training.progress, training.model, training.worker.state())

    def _any_site_may_be_lost(self) -> bool:
        """Whether any one site may be lost without going back to a checkpoint."""
        training, world = self._training, range(self._training.job.world)
        without_one = (tuple(r for r in world if r != lost) for lost in world)
        spec = training.spec
        return all(training.method.survives(spec.model, len(world), left, spec.seed) for left in without_one)

    def restart(self) -> int:
        """Take up what this worker's earlier processes left; returns the payload bytes that they sent.

        What they had synchronised counts, what they had done since is lost.
        """
        training, before = self._training, self._steps.give_up_uncommitted()
        training.progress.tokens, training.progress.payload_bytes = before.tokens, before.payload_bytes
        entries = self._log.read()
        self.committed = before.committed
        self._last_member = max((e["generation"] for e in entries if e["kind"] == "reformed"), default=0)
        now = time.time()
        training.absent_seconds = now - next((e["when"] for e in entries if e["kind"] == "began"), now)
        self._log.add("back", restarts=training.job.restarts, committed=before.committed)
        self._log.add("tokens lost", tokens=before.all_tokens - before.tokens, step=before.committed)
        return before.all_payload_bytes
