"""One worker's training process: started by `harness.worker_main` inside a node.

Every step passes the same stations: data, forward and backward, local update, the paced slot's end, synchronisation by
the method's plan, and now and then evaluation and a checkpoint. Each is timed into its bucket.
"""

from __future__ import annotations

import math
import random
import resource
import time
from typing import TextIO

import torch

from algorithms.exchange import Exchange
from algorithms.worker import Worker, WorkerSetup
from harness.records.run_record import Step
from harness.spec.resolved import ResolvedRun
from harness.worker.connect import connect_control, connect_wan
from harness.worker.data import Shard, held_out_batches
from harness.worker.job import Job, Summary
from harness.worker.model import build_model, mean_loss
from harness.worker.pacing import StepPacer, Stopwatch
from harness.worker.padded_exchange import PaddedExchange
from harness.worker.resume import Progress, restore, save, wire_bytes_sent
from netsim.errors import LonghaulError
from netsim.traffic import Transfer, WireType

GO_TIMEOUT = 300.0


class Trainer:
    """Builds the worker at once, connects when the runner says go, then trains."""

    def __init__(self, job: Job) -> None:
        self.job, self.spec = job, job.spec
        train = self.spec.train
        torch.manual_seed(self.spec.seed)
        random.seed(self.spec.seed)
        self.resolved = ResolvedRun.of(self.spec)
        self.method, self.plan = self.resolved.method, self.resolved.own_plan
        view = self.method.view(self.spec.model, job.world, job.rank, self.spec.seed)
        self.model = build_model(self.spec.model, self.spec.seed, view)
        self.model.balance_weight = train.balance_weight
        self.shard = Shard(job.shard)
        self.held_out = held_out_batches(
            job.held_out, train.held_out_sequences, train.batch, self.spec.model.sequence, job.rank, job.world
        )
        self.schedule = self.method.schedule(train.learning_rate)
        self.watch = Stopwatch()
        self.slots = StepPacer(self.spec.compute.step_seconds, self.spec.compute.backward_share)
        self.progress = Progress()
        self.started_at = 0.0  # seconds since the epoch
        self._begin = 0.0  # monotonic time at which the training clock was zero
        self._absent = 0.0  # seconds of that clock before this process took part
        self._sent_before = 0  # payload bytes of this rank that the present ledger does not know of
        self._wire_begin = 0

    def run(self) -> Summary:
        self._wait_for_go()
        with (
            self.job.files.ledger.open("a", encoding="utf-8") as ledger,
            connect_wan(self.job, self.resolved.topology, self.slots.ready_at, ledger) as self.wan,
            connect_control(self.job) as self.control,
        ):
            worker = self._worker(self.wan, self.control)
            if self.job.resume_from:
                self.progress = restore(
                    self.job.rank_directory, self.job.run_id, self.job.resume_from, self.model, worker
                )
                self._sent_before = self.progress.payload_bytes
            wire_before = self.progress.wire_bytes
            self._wire_begin = wire_bytes_sent() - wire_before
            self._barrier("barrier", 0)
            self._start_clock()
            with self._steps_file() as log:
                while not self._finished():
                    self._advance(worker, log)
            return self._summary(worker, wire_before)

    def _wait_for_go(self) -> None:
        self.job.files.ready.touch()
        deadline = time.monotonic() + GO_TIMEOUT
        while not self.job.run_files.go.exists():
            if time.monotonic() > deadline:
                raise LonghaulError(f"the runner did not say go within {GO_TIMEOUT} s")
            time.sleep(0.02)

    def _worker(self, exchange: Exchange, control: Exchange) -> Worker:
        if self.resolved.fillers.recurrences:
            exchange = PaddedExchange(exchange, self.resolved.fillers)
        return self.method.worker(
            WorkerSetup(
                model=self.model,
                shape=self.spec.model,
                plan=self.plan,
                rank=self.job.rank,
                exchange=exchange,
                control=control,
                optimizer=self.method.inner,
                seed=self.spec.seed,
            )
        )

    def _start_clock(self) -> None:
        self.slots.overruns = self.progress.overruns
        self.watch.lap()
        self.started_at, self._begin = time.time(), time.monotonic() - self.progress.clock - self._absent

    def _steps_file(self) -> TextIO:
        return self.job.files.steps.open("a", encoding="utf-8")

    def _finished(self) -> bool:
        reached = self.spec.train.stop_at_target and self.progress.time_to_target is not None
        return reached or self.progress.step >= self.spec.train.steps

    def _advance(self, worker: Worker, log: TextIO) -> None:
        """One step, its record, and a checkpoint where one is due."""
        progress = self.progress
        step = progress.step + 1
        training_loss = self._step(worker, step)
        evaluation = self._evaluate(worker, step)
        if evaluation is not None and not math.isfinite(evaluation):
            raise LonghaulError(f"training diverged: the held-out loss is {evaluation} after step {step}")
        seconds = self.watch.lap()
        progress.add(seconds)
        progress.step, progress.clock = step, time.monotonic() - self._begin
        progress.payload_bytes = self._payload_bytes()
        self._log(log, worker, training_loss, evaluation, seconds)
        if evaluation is not None:
            progress.final_loss, target = evaluation, self.spec.train.target_loss
            if target is not None and progress.time_to_target is None and evaluation <= target:
                aside = progress.seconds["evaluation"] + progress.seconds["checkpoint"]
                progress.time_to_target = progress.clock - aside
        every = self.spec.train.checkpoint_every
        if every and step % every == 0 and not self._finished():
            with self.watch.bucket("checkpoint"):
                self._checkpoint(worker)

    def _checkpoint(self, worker: Worker) -> None:
        """Nobody begins one before all have come to its step, so that the last two of any two workers overlap."""
        self._barrier("checkpoint", self.progress.step)
        state = worker.state()  # waits for what is under way, so it comes before the bytes are counted
        self.progress.payload_bytes = self._payload_bytes()
        self.progress.overruns = self.slots.overruns
        self.progress.wire_bytes = wire_bytes_sent() - self._wire_begin
        save(self.job.rank_directory, self.job.run_id, self.progress, self.model, state)

    def _committed(self) -> int | None:
        """The last synchronised step, for who must know it when a worker is lost."""
        return None

    def _payload_bytes(self) -> int:
        return self._sent_before + self.wan.ledger.total

    def _summary(self, worker: Worker, wire_before: int) -> Summary:
        progress, wall = self.progress, time.monotonic() - self._begin - self._absent
        return Summary(
            rank=self.job.rank,
            steps=progress.step,
            wall_seconds=wall,
            seconds=progress.seconds,
            unaccounted_seconds=wall - sum(progress.seconds.values()),
            tokens=progress.tokens,
            payload_bytes=self._payload_bytes(),
            wire_bytes_before=wire_before,
            memory=worker.memory(),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            slot_overruns=self.slots.overruns,
            final_loss=progress.final_loss,
            time_to_target_seconds=progress.time_to_target,
            started_at=self.started_at,
        )

    def _step(self, worker: Worker, step: int) -> float | None:
        """One local step; returns the loss of its batch, None for a worker that sits this step out."""
        train, lr = self.spec.train, self.schedule.lr(step)
        loss: float | None = None
        self.slots.begin()
        if self.job.rank in self.plan.active(step):
            with self.watch.bucket("data"):
                inputs, targets = self.shard.batch(
                    step, train.batch, self.spec.model.sequence, self.spec.seed, self.job.rank
                )
            with self.watch.bucket("compute"):
                worker.begin(step)
                with self._precision():
                    logits = worker.module(inputs)
                objective = mean_loss(logits, targets)
                loss = objective.item()
                torch.autograd.backward(objective + self.model.auxiliary_loss())
                worker.local_update(step, lr)
            self.progress.tokens += inputs.numel()
        with self.watch.bucket("pacing"):
            self.slots.wait()
        before, start = self.wan.waited_seconds, time.monotonic()
        try:
            with self.watch.bucket("compute"):
                worker.synchronise(step, lr)
        finally:
            waited = self.wan.waited_seconds - before
            self.watch.move(waited, "compute", "communication")
            self.slots.carry_over(time.monotonic() - start - waited)
        return loss

    def _evaluate(self, worker: Worker, step: int) -> float | None:
        """Held-out loss of the method's model, each worker on its part, at the steps that the suite names."""
        train = self.spec.train
        if step % train.evaluate_every and step != train.steps:
            return None
        with self.watch.bucket("evaluation"), torch.no_grad(), worker.evaluation() as model:
            total = torch.zeros(2, dtype=torch.float64)
            model.eval()
            for inputs, targets in self.held_out:
                with self._precision():
                    logits = model(inputs)
                count = targets.numel()
                total += torch.tensor([mean_loss(logits, targets).item() * count, count], dtype=torch.float64)
            model.train()
            self._sum(total, "evaluation", step)
        return float(total[0] / total[1])

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.spec.train.precision == "bf16")

    def _sum(self, values: torch.Tensor, name: str, step: int) -> None:
        transfer = Transfer(name, values.numel(), tuple(range(self.job.world)), WireType.FP64)
        self.control.run(step, [(transfer, values)])

    def _barrier(self, name: str, step: int) -> None:
        self._sum(torch.zeros(1, dtype=torch.float64), name, step)

    def _log(
        self,
        log: TextIO,
        worker: Worker,
        loss: float | None,
        evaluation: float | None,
        seconds: dict[str, float],
    ) -> None:
        progress = self.progress
        record = Step(
            step=progress.step,
            clock=progress.clock,
            loss=loss,
            lr=self.schedule.lr(progress.step),
            tokens=progress.tokens,
            seconds=seconds,
            payload_bytes=progress.payload_bytes,
            evaluation_loss=evaluation,
            committed=self._committed(),
            metrics=worker.metrics(),
        )
        log.write(record.model_dump_json(exclude_none=True) + "\n")
        log.flush()
