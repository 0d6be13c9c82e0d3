"""A trainer that goes on when others fail: it meets whoever is left, agrees on where to go on, and does.

Every wait in it ends: an exchange gives a silent peer up after `network.timeout_seconds`, the keeper decides a
generation within as much again, and a worker that nobody takes in, or that makes no progress, gives up.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, TextIO, cast

import torch
from torch import Tensor

from algorithms.worker import Worker
from harness.elastic.fault_injector import FaultInjector
from harness.elastic.membership import MEETINGS, Membership, Report, View
from harness.elastic.partial_exchange import PartialExchange
from harness.records.logs import WorkerLog
from harness.records.run_record import Step, read_lines
from harness.transport.ledger import Ledger
from harness.worker.connect import connect_control, connect_wan
from harness.worker.data import held_out_batches
from harness.worker.job import WAN_PORT, Job, Summary
from harness.worker.resume import restore, save, truncate_log, valid_steps
from harness.worker.trainer import Trainer
from netsim.errors import LonghaulError, PeerError
from netsim.traffic import Transfer, WireType

PATH_SECONDS = 2.0  # for a greeting to cross the WAN
LOBBY_TIMEOUTS = 10  # how many timeouts a worker waits outside


class ResilientTrainer(Trainer):
    """`committed`: the last step with a synchronisation that this worker has the result of."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        assert job.store is not None
        self.timeout = self.spec.network.timeout_seconds
        self.method_exchange = PartialExchange(job.rank, job.world, self.method.scale)
        self.control_exchange = PartialExchange(job.rank, job.world, lambda t, p: len(t.members) / len(p))
        self.generation, self.members = 0, tuple(range(job.world))
        self.committed = 0
        self._kept = 0  # what was committed when this worker was left out, or when its life before ended
        self._stood = 0  # the last generation that it was a member of
        self.diary = WorkerLog(job.rank_directory)
        self.misfortune = FaultInjector(self.spec, job.rank, self.diary)
        self.snapshot: tuple[int, int, dict[str, Tensor]] | None = None  # step, tokens, model and worker
        self._open = ExitStack()
        self._ledgers: list[Ledger] = []
        self._interrupted = False  # whether the step after progress.step has been begun
        self._trouble: PeerError | None = None  # met in an evaluation
        self._unevaluated = False  # whether the run's last evaluation is still to be made
        self._meetings = 0
        self._furthest = 0  # the last step that any member had done when this generation began

    def run(self) -> Summary:
        self._wait_for_go()
        with (
            self.job.files.ledger.open("a", encoding="utf-8") as self.ledger_file,
            self._open,
        ):
            assert self.job.store is not None
            self.membership = Membership(self.job.store, self.timeout)
            worker = self._worker(self.method_exchange, self.control_exchange)
            if self.job.restarts == 0:
                self._connect(View(generation=0, members=self.members, authority=0))
                self._barrier("barrier", 0)
                self._start_clock()
                self.diary.add("began")
                self.steps_log = self._steps_file()
            else:
                self._come_back()
                self._start_clock()
                self.steps_log = self._steps_file()
                self._meet(worker, None, outside=True)
            if self.method.after_loss == "rollback" or not self._survivable():
                self._save(worker)
            while not self._finished():
                try:
                    self._go_on(worker)
                except PeerError as error:
                    self._meet(worker, error)
            self.steps_log.close()
            return self._summary(worker, 0)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _called(self) -> bool:
        """Whether a meeting is called, or somebody may be let in now, between two rounds."""
        upcoming = self.generation + 1
        with self.watch.bucket("communication"):
            if self.membership.wanted(upcoming):
                return True
            return self.progress.step == self.committed and self.membership.joiners(upcoming)

    def _finished(self) -> bool:
        return super()._finished() and self._trouble is None and not self._unevaluated

    def _go_on(self, worker: Worker) -> None:
        if self._trouble is not None:
            error, self._trouble = self._trouble, None
            raise error
        if self._unevaluated and super()._finished():
            self.progress.final_loss = super()._evaluate(worker, self.progress.step)
            self._unevaluated = False
            return
        if self._called():
            self._meet(worker, None)
            return
        step = self.progress.step + 1
        with self.watch.bucket("pacing"):  # a pause is time in which nothing is computed
            pace = self.misfortune.strike(step, self.wan)
        if self._takes_part(step) and self.method.after_loss == "redo":
            self._remember(step, worker)
        self._interrupted = True
        began = time.monotonic()
        self.slots.stretch(pace)
        self._advance(worker, self.steps_log)
        if pace > 1 and self.slots.length is None:
            with self.watch.bucket("pacing"):
                time.sleep((pace - 1) * (time.monotonic() - began))
        self._interrupted, self._meetings = False, 0

    def _step(self, worker: Worker, step: int) -> float | None:
        loss = super()._step(worker, step)
        if self._takes_part(step):
            self.committed = step
        return loss

    def _evaluate(self, worker: Worker, step: int) -> float | None:
        """An evaluation that somebody's loss interrupts is left out, except the last, which those left make anew.

        Members that were behind leave it out as well: those ahead would not come to it any more.
        """
        if step <= self._furthest:
            self._unevaluated = step == self.spec.train.steps
            return None
        try:
            return super()._evaluate(worker, step)
        except PeerError as error:
            self._trouble, self._unevaluated = error, step == self.spec.train.steps
            return None

    def _checkpoint(self, worker: Worker) -> None:
        """As all checkpoints, where all members come to it; see `_evaluate`."""
        if self.progress.step > self._furthest:
            super()._checkpoint(worker)

    def _sum(self, values: Tensor, name: str, step: int) -> None:
        transfer = Transfer(name, values.numel(), self.members, WireType.FP64)
        self.control_exchange.run(step, [(transfer, values)])

    def _takes_part(self, step: int) -> bool:
        return any(self.job.rank in transfer.members for transfer in self.plan.at(step))

    def _survivable(self) -> bool:
        """Whether any one site may be lost without going back to a checkpoint."""
        world = range(self.job.world)
        return all(
            self.method.survives(self.spec.model, len(world), tuple(r for r in world if r != lost), self.spec.seed)
            for lost in world
        )

    def _remember(self, step: int, worker: Worker) -> None:
        """What `step` starts from, to make it anew when somebody is lost in its synchronisation."""
        with self.watch.bucket("checkpoint"):
            self.snapshot = step, self.progress.tokens, {n: t.clone() for n, t in self._everything(worker).items()}

    def _everything(self, worker: Worker) -> dict[str, Tensor]:
        model = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        return model | worker.state()

    @torch.no_grad()
    def _undo(self, worker: Worker) -> None:
        """Back to the start of the step that was interrupted."""
        step = self.progress.step + 1
        if self.snapshot is not None and self.snapshot[0] == step:
            _, self.progress.tokens, saved = self.snapshot
            for name, parameter in self.model.named_parameters():
                parameter.copy_(saved[f"model.{name}"])
            worker.load({name: t.clone() for name, t in saved.items() if not name.startswith("model.")})
        elif self.method.after_loss == "rollback":  # whose step changes nothing before its exchange is over
            self.progress.tokens = self._tokens_logged()
        self._interrupted = False

    # --- meetings -----------------------------------------------------------------------------------------------------

    def _meet(self, worker: Worker, error: PeerError | None, outside: bool = False) -> None:
        """Until this worker is a member of a generation that is connected and of one state."""
        began = time.monotonic()
        self._trouble = None  # whatever it was, this meeting is about it
        with self.watch.bucket("communication"):
            while True:
                self._meetings += 1
                if self._meetings > MEETINGS:
                    raise LonghaulError(f"no progress in {MEETINGS} generations; the last failed for: {error}")
                decision = self._agree(error, outside)
                outside = False
                try:
                    self._connect(decision)
                    self._become(worker, decision)
                    break
                except PeerError as failed:
                    error = failed
            self._stood = self.generation
            self.diary.add(
                "reformed",
                generation=self.generation,
                members=self.members,
                step=self.progress.step,
                seconds=round(time.monotonic() - began, 4),
            )

    def _agree(self, error: PeerError | None, outside: bool) -> View:
        upcoming = self.generation + 1
        if not outside:
            called = self.membership.wanted(upcoming)
            suspects = blame(error, called)
            kind = "called" if error is None else "detected"
            self.diary.add(kind, generation=upcoming, step=self.progress.step, reason=str(error or ""), blamed=suspects)
            self.membership.call(upcoming, self._report(suspects))
            self._open.close()
            decision = self.membership.decision(upcoming, 3 * self.timeout)
            if decision.abandoned:
                raise LonghaulError(decision.abandoned)
            if self.job.rank in decision.members:
                return decision
            self.diary.add("left out", generation=decision.generation)
        self._kept, self.committed = self.committed, -1
        patience = LOBBY_TIMEOUTS * self.timeout
        return self.membership.enter(self._report(()), patience, partial(reachable, self.job))

    def _report(self, suspects: tuple[int, ...]) -> Report:
        return Report(
            rank=self.job.rank,
            step=self.progress.step,
            committed=self.committed,
            suspects=suspects,
            checkpoints=tuple(sorted(valid_steps(self.job.rank_directory, self.job.run_id))),
        )

    def _connect(self, decision: View) -> None:
        self._open.close()
        self.generation, self.members = decision.generation, decision.members
        self._furthest = decision.furthest
        tagged = cast(TextIO, Tagged(self.ledger_file, self.generation))
        self.wan = self._open.enter_context(
            connect_wan(self.job, self.resolved.topology, self.slots.ready_at, tagged, self.generation, self.members)
        )
        self.control = self._open.enter_context(connect_control(self.job, self.generation, self.members))
        self._ledgers.append(self.wan.ledger)
        self.method_exchange.become(self.wan, self.members)
        self.control_exchange.become(self.control, self.members)
        train = self.spec.train
        self.held_out = held_out_batches(
            self.job.held_out,
            train.held_out_sequences,
            train.batch,
            self.spec.model.sequence,
            self.members.index(self.job.rank),
            len(self.members),
        )

    def _become(self, worker: Worker, decision: View) -> None:
        """The state that the generation starts from."""
        rank, tokens = self.job.rank, self.progress.tokens
        worker.forget()
        if decision.rollback is not None and rank not in decision.behind:
            self._roll_back(worker, decision.rollback)
        elif self._interrupted and rank not in decision.behind:
            self._undo(worker)
        if decision.behind:
            self._catch_up(worker, decision)
        if decision.rollback is not None and self.method.after_loss != "rollback":
            self.snapshot = None
        if tokens > self.progress.tokens:
            self.diary.add("tokens lost", tokens=tokens - self.progress.tokens, step=self.progress.step)

    def _roll_back(self, worker: Worker, step: int) -> None:
        progress = restore(self.job.rank_directory, self.job.run_id, step, self.model, worker)
        now = self.progress  # time and bytes go on, only the training goes back
        now.step, now.tokens, now.final_loss = step, progress.tokens, progress.final_loss
        now.time_to_target = progress.time_to_target
        self.committed, self._interrupted = step, False
        self._give_up_after(step)
        self.diary.add("rolled back", step=step)

    def _give_up_after(self, step: int) -> None:
        """Steps that were made in vain go from one log to the other."""
        self.steps_log.close()
        cut = truncate_log(self.job.files.steps, step)
        self.steps_log = self._steps_file()
        self._keep_lost(cut)

    def _keep_lost(self, lines: Iterable[dict[str, Any]]) -> None:
        with self.job.files.lost_steps.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def _catch_up(self, worker: Worker, decision: View) -> None:
        """From the authority's state to those behind, over the WAN and in the ledger."""
        transfers = worker.catch_up(decision.authority, decision.behind, decision.members)
        self.wan.run(decision.step, transfers)
        if self.job.rank not in decision.behind:
            return
        worker.take_over(transfers)
        self._forsake(decision)
        self.progress.step, self.committed, self._interrupted = decision.step, decision.committed, False
        self.diary.add("caught up", step=decision.step, bytes=sum(transfer.size for transfer, _ in transfers))

    def _forsake(self, decision: View) -> None:
        """This worker's state is another's now: lost is what it had done since it last synchronised, or since a
        checkpoint that others have gone back to in the meantime.
        """
        missed = range(self._stood + 1, decision.generation + 1)
        rollbacks = (self.membership.decision(generation, self.timeout).rollback for generation in missed)
        own = self._kept if self.committed < 0 else self.committed
        self._give_up_after(min([own, *(step for step in rollbacks if step is not None)]))
        self.progress.tokens = self._tokens_logged()

    def _tokens_logged(self) -> int:
        last = 0
        for line in read_lines(self.job.files.steps, Step):
            last = line.tokens
        return last

    def _come_back(self) -> None:
        """A new life: what the one before committed counts, what it had done since is lost."""
        steps = self.job.files.steps
        lines = truncate_log(steps, -1)
        committed = max((line.get("committed") or 0 for line in lines), default=0)
        kept = [line for line in lines if line["step"] <= committed]
        steps.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._keep_lost(lines[len(kept) :])
        if kept:
            self.progress.tokens, self.progress.payload_bytes = kept[-1]["tokens"], kept[-1]["payload_bytes"]
        self._sent_before = lines[-1]["payload_bytes"] if lines else 0
        lost = (lines[-1]["tokens"] if lines else 0) - self.progress.tokens
        diary = self.diary.read()
        self.committed = committed
        self._stood = max((entry["generation"] for entry in diary if entry["kind"] == "reformed"), default=0)
        self._absent = time.time() - next((entry["when"] for entry in diary if entry["kind"] == "began"), time.time())
        self.diary.add("back", restarts=self.job.restarts, committed=committed)
        self.diary.add("tokens lost", tokens=lost, step=committed)

    def _payload_bytes(self) -> int:
        return self._sent_before + sum(ledger.total for ledger in self._ledgers)

    def _committed(self) -> int | None:
        return self.committed

    def _save(self, worker: Worker) -> None:
        """The checkpoint to fall back to before the first regular one."""
        with self.watch.bucket("checkpoint"):
            if not valid_steps(self.job.rank_directory, self.job.run_id):
                save(self.job.rank_directory, self.job.run_id, self.progress, self.model, worker.state())


def reachable(job: Job, members: tuple[int, ...]) -> bool:
    """Whether the WAN carries a greeting to the members; their exchanges turn the stranger away, which is an answer.

    One that is about to be replaced by the next generation's may not listen for a moment: that is an answer, too.
    """
    for rank in set(members) - {job.rank}:
        try:
            place = (job.wan_addresses[rank], WAN_PORT)
            socket.create_connection(place, PATH_SECONDS, (job.wan_addresses[job.rank], 0)).close()
        except ConnectionError:
            continue
        except OSError:
            return False
    return True


class Tagged:
    """Writes the ledger's lines with the generation that they belong to."""

    def __init__(self, file: TextIO, generation: int) -> None:
        self._file, self._generation = file, generation

    def write(self, line: str) -> int:
        return self._file.write(line.replace("{", f'{{"generation": {self._generation}, ', 1))

    def flush(self) -> None:
        self._file.flush()


def blame(error: PeerError | None, called: bool) -> tuple[int, ...]:
    """Whom an error says that this worker cannot reach; but not one that hung up after a meeting was called, for that
    is what coming to the meeting looks like.
    """
    if error is None or (called and error.hung_up):
        return ()
    return tuple(sorted(set(error.ranks)))
