"""The life of a run whose workers may be lost and come back, seen by one of them. In the trainer process.

Every wait in it ends: an exchange gives a silent peer up after `network.timeout_seconds`, the coordinator decides a
generation within as much again, and a worker that nobody takes in, or that makes no progress, gives up.
"""

from __future__ import annotations

import time
from functools import partial

from torch import Tensor

from harness.elastic.connections import Connections
from harness.elastic.fault_injector import FaultInjector
from harness.elastic.membership import Membership
from harness.elastic.rendezvous import Rendezvous
from harness.elastic.returns import lets_in
from harness.elastic.state_sync import StateSync
from harness.elastic.step_log import StepLog
from harness.elastic.views import View
from harness.records.logs import WorkerLog
from harness.worker.job import Job, Summary
from harness.worker.site_connection import barrier, sum_over
from harness.worker.trainer import wait_for_go
from harness.worker.training import Training
from netsim.errors import PeerError


class ElasticTrainer:
    """Trains with whoever is there. After a loss, or to let somebody in, all members meet and form a new generation."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.training = Training(job)
        self._log = WorkerLog(job.rank_directory)
        self._steps = StepLog(job.files)
        self._injector = FaultInjector(job.spec, job.rank, self._log)
        self._sent_before = 0  # payload bytes of this worker's earlier processes
        self._failure: PeerError | None = None  # met in an evaluation, and still to be dealt with
        self._final_evaluation_due = False

    def run(self) -> Summary:
        """Raises LonghaulError when the run cannot continue or diverges, OSError if the disk is full."""
        training, job = self.training, self.job
        wait_for_go(job)
        with job.files.ledger.open("a", encoding="utf-8") as ledger:
            assert job.store is not None
            membership = Membership(job.store, job.spec.network.timeout_seconds)
            self._rendezvous = Rendezvous(job, training.resolved.topology.timeline, membership, self._log)
            self._sync = StateSync(training, self._steps, self._log, self._rendezvous.rollback_of)
            self._connections = Connections(training.resolved, job, training.pacer.ready_at, ledger)
            training.build_worker(self._connections.method_exchange, self._connections.control_exchange)
            try:
                if job.restarts == 0:
                    self._connections.connect(self._rendezvous.view)
                    barrier(self._connections.control_exchange, "barrier", 0, self._rendezvous.view.members)
                    training.start_clock()
                    self._log.add("began")
                else:
                    self._sent_before = self._sync.restart()
                    training.start_clock()
                    self._rejoin()
                self._sync.save_initial(self._payload_bytes)
                while not self._finished():
                    try:
                        self._continue()
                    except PeerError as error:
                        self._reform(error)
                return training.summary(self._payload_bytes())
            finally:
                self._connections.close()
                self._steps.close()

    def _finished(self) -> bool:
        return self.training.finished and self._failure is None and not self._final_evaluation_due

    def _continue(self) -> None:
        """Whatever is next: a failure to deal with, the last evaluation, a rendezvous, a step."""
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error
        if self._final_evaluation_due and self.training.finished:
            step = self.training.progress.step
            self.training.progress.final_loss = self.training.evaluate(partial(self._sum, step))
            self._final_evaluation_due = False
        elif self._rendezvous_due():
            self._reform(None)
        else:
            self._advance(self.training.progress.step + 1)

    def _rendezvous_due(self) -> bool:
        """Whether a rendezvous is called, or somebody may be let in now, between two rounds."""
        with self.training.watch.bucket("communication"):
            step = self.training.progress.step
            return self._rendezvous.due(step, lets_in(self.training.plan, step) and step > 0)

    def _advance(self, step: int) -> None:
        """One step with its faults, its record, and a checkpoint where one is due."""
        training, connections = self.training, self._connections
        with training.watch.bucket("pacing"):  # a pause is time in which nothing is computed
            slowdown = self._injector.inject(step, (connections.wan, connections.control))
        self._sync.begin_step(step)
        began = time.monotonic()
        training.pacer.scale(slowdown)
        loss = training.train_step(step, connections.wan)
        self._sync.synchronised(step)
        evaluation = self._evaluate(step)
        training.end_step(step, loss, evaluation, self._payload_bytes(), self._steps.file, self._sync.committed)
        self._sync.end_step()
        self._rendezvous.step_done()
        # Members that were behind leave a checkpoint out: those ahead would not come to its barrier any more.
        if training.checkpoint_due() and step > self._rendezvous.view.max_step and self._failure is None:
            with training.watch.bucket("checkpoint"):
                barrier(connections.control_exchange, "checkpoint", step, self._rendezvous.view.members)
                training.save(self._payload_bytes)
        if slowdown > 1 and training.pacer.length is None:
            with training.watch.bucket("pacing"):
                time.sleep((slowdown - 1) * (time.monotonic() - began))

    def _evaluate(self, step: int) -> float | None:
        """An evaluation that a loss interrupts is left out, except the last, which the survivors repeat.

        Members that were behind leave it out as well: those ahead would not come to it any more.
        """
        if step <= self._rendezvous.view.max_step:
            self._final_evaluation_due = step == self.job.spec.train.steps
            return None
        if not self.training.evaluation_due(step):
            return None
        try:
            return self.training.evaluate(partial(self._sum, step))
        except PeerError as error:
            self._failure, self._final_evaluation_due = error, step == self.job.spec.train.steps
            return None

    def _sum(self, step: int, values: Tensor) -> None:
        sum_over(self._connections.control_exchange, "evaluation", step, self._rendezvous.view.members, values)

    def _payload_bytes(self) -> int:
        return self._sent_before + self._connections.payload_bytes

    # --- generations --------------------------------------------------------------------------------------------------

    def _reform(self, error: PeerError | None) -> None:
        """Until this worker is a member of a generation that is connected and of one state."""
        began = time.monotonic()
        self._failure = None  # whatever it was, this rendezvous is about it
        with self.training.watch.bucket("communication"):
            while True:
                self._rendezvous.call(error, self._sync.report)
                self._connections.close()
                view = self._rendezvous.next_view()
                if view is None:
                    self._sync.leave()
                    view = self._rendezvous.enter(self._sync.report())
                try:
                    self._form(view, began)
                    return
                except PeerError as failed:
                    error = failed

    def _rejoin(self) -> None:
        """A worker that was started again waits until it is let in."""
        began = time.monotonic()
        self._sync.leave()
        with self.training.watch.bucket("communication"):
            view = self._rendezvous.enter(self._sync.report())
        try:
            with self.training.watch.bucket("communication"):
                self._form(view, began)
        except PeerError as error:
            self._reform(error)

    def _form(self, view: View, began: float) -> None:
        """Connect the view's members and bring this worker to the state that they start from."""
        self._connections.connect(view)
        self.training.share_evaluation(view.members.index(self.job.rank), len(view.members))
        self._sync.adopt(view, self._connections.wan)
        self._sync.became_member(view.generation)
        self._log.add(
            "reformed",
            generation=view.generation,
            members=view.members,
            step=self.training.progress.step,
            seconds=round(time.monotonic() - began, 4),
        )
