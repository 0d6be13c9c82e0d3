"""One worker's training: model, data, schedule and clock, and the stations of a step. In the trainer process.

Every step passes the same stations: data, forward and backward, local update, the end of the paced slot,
synchronisation by the method's plan, and now and then evaluation and a checkpoint. Each is timed into its bucket.
Connections, barriers and the order of a run belong to the trainers.
"""

from __future__ import annotations

import math
import random
import resource
import time
from collections.abc import Callable
from typing import Protocol, TextIO

import torch
from torch import Tensor

from algorithms.exchange import Exchange
from algorithms.site_group import SiteExchange, SiteGroup
from algorithms.worker import Worker, WorkerSetup
from harness.records.run_record import Step
from harness.spec.resolved import ResolvedRun
from harness.worker.data import Shard, held_out_batches
from harness.worker.device import StagedExchange, find_device, peak_bytes
from harness.worker.job import Job, Summary
from harness.worker.model import build_trained_model
from harness.worker.pacing import StepPacer, Stopwatch
from harness.worker.padded_exchange import PaddedExchange
from harness.worker.resume import Progress, restore, save, wire_bytes_sent
from netsim.errors import HostError, LonghaulError


class Waits(Protocol):
    @property
    def waited_seconds(self) -> float:
        """For which callers have been blocked so far."""


class Training:
    """What a worker trains with and how far it has come. `worker` is there after `build_worker`."""

    worker: Worker

    def __init__(self, job: Job) -> None:
        self.job, self.spec = job, job.spec
        torch.manual_seed(self.spec.seed)
        random.seed(self.spec.seed)
        train = self.spec.train
        self.resolved = ResolvedRun.of(self.spec)
        self.method, self.plan = self.resolved.method, self.resolved.own_plan
        self.method.preload()
        view = self.method.view(self.spec.model, job.world, job.rank, self.spec.seed)
        self.trained = build_trained_model(self.spec.model, self.spec.seed, view, train.balance_weight)
        self.device = find_device(self.spec.compute.device)
        self.model = self.trained.module.to(self.device)
        self.shard = Shard(job.shard)
        members = self.resolved.members
        self.share_evaluation(sum(members[: job.rank]) + job.member, sum(members))
        self.site: SiteGroup | None = None  # where the site has several workers
        self.schedule = self.method.schedule(train.learning_rate)
        self.watch = Stopwatch()
        site, self.own_compute = self.spec.sites[job.rank], self.spec.compute.of(self.spec.sites[job.rank])
        self.pacer = StepPacer(self.spec.compute.seconds_at(site), self.spec.compute.backward_share)
        self.weight = self.spec.joined_weight(job.rank) if self.method.joins_batches else 1.0
        self.progress = Progress()
        self.absent_seconds = 0.0  # of the training clock, before this process took part
        self._started_at = 0.0  # seconds since the epoch
        self._zero = 0.0  # monotonic time at which the training clock was zero
        self._wire_zero = 0  # wan0's counter when this run had sent nothing

    # --- before the first step ----------------------------------------------------------------------------------------

    def build_worker(self, exchange: Exchange | None, control: Exchange | None, site: SiteGroup | None = None) -> None:
        """The method's worker over `exchange`, with the filler traffic of a scaled run beside it.

        exchange, control: None for a worker that is not its site's leader.
        """
        fillers = self.resolved.fillers
        if exchange is not None and fillers.recurrences:
            exchange = PaddedExchange(exchange, fillers)
        if site is not None:
            rank, world = self.job.rank, self.job.world
            exchange = SiteExchange(site, exchange, rank, world)
            control = SiteExchange(site, control, rank, world)
        assert exchange is not None
        assert control is not None
        if self.device.type != "cpu":
            if site is not None:
                raise HostError("compute.device: workers of one site cannot share it on GPUs; give it one worker")
            exchange, control = StagedExchange(exchange), StagedExchange(control)
        self.site = site
        self.worker = self.method.worker(
            WorkerSetup(
                model=self.model,
                shape=self.spec.model,
                plan=self.plan,
                rank=self.job.rank,
                exchange=exchange,
                control=control,
                optimizer=self.method.inner,
                seed=self.spec.seed,
                site=site,
            )
        )

    def share_evaluation(self, place: int, count: int) -> None:
        """Evaluate part `place` of `count` parts of the held-out data."""
        train = self.spec.train
        self.held_out = held_out_batches(
            self.job.held_out, train.held_out_sequences, train.batch, self.spec.model.sequence, place, count
        )

    def resume(self, step: int) -> None:
        """Continue from this worker's checkpoint of `step`; 0: from the start. Raises InputError if it is damaged."""
        if step:
            self.progress = self.restore(step)
        self._wire_zero = wire_bytes_sent() - self.progress.wire_bytes

    def restore(self, step: int) -> Progress:
        """Model and worker as they were after `step`; returns the progress of that time."""
        return restore(self.job.checkpoint_owner, step, self.model, self.worker)

    def start_clock(self) -> None:
        """The training clock runs from now on."""
        self.pacer.overruns = self.progress.overruns
        self.watch.lap()
        self._started_at = time.time()
        self._zero = time.monotonic() - self.progress.clock - self.absent_seconds

    # --- a step -------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        reached = self.spec.train.stop_at_target and self.progress.time_to_target is not None
        return reached or self.progress.step >= self.spec.train.steps

    def train_step(self, step: int, wan: Waits) -> float | None:
        """One local step and its synchronisation. Returns the loss of its batch, None for a worker that sits it out.

        Raises PeerError if the synchronisation fails.
        """
        lr = self.schedule.lr(step)
        loss: float | None = None
        trains = self.own_compute.trains(step)
        self.pacer.begin(idle=not trains)
        if trains and self.job.rank in self.plan.active(step):
            with self.watch.bucket("data"):
                inputs, targets = self._batch(step)
            with self.watch.bucket("compute"):
                self.trained.begin(step, self.job.rank, self.job.member)
                self.worker.begin(step)
                with self._precision():
                    output = self.worker.module(inputs)
                objective = self.trained.loss(output, targets)
                loss = objective.item()
                objective = objective + self.trained.auxiliary_loss()
                torch.autograd.backward(objective if self.weight == 1 else objective * self.weight)
                if self.site is not None:
                    self.worker.average_gradients(step, self.site)
                    loss = self.site.mean(step, "loss", loss)
                self.worker.local_update(step, lr)
            self.progress.tokens += inputs.numel()
        with self.watch.bucket("pacing"):
            self.pacer.wait()
        before, start = wan.waited_seconds, time.monotonic()
        try:
            with self.watch.bucket("compute"):
                self.worker.synchronise(step, lr)
        finally:
            waited = wan.waited_seconds - before
            self.watch.move(waited, "compute", "communication")
            self.pacer.carry_over(time.monotonic() - start - waited)
        return loss

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This worker's share of the batch that its site trains on in `step`."""
        size, members = self.spec.batch(self.job.rank), self.job.site_workers
        whole = self.shard.batch(step, size * members, self.spec.model.sequence, self.spec.seed, self.job.rank)
        share = slice(size * self.job.member, size * (self.job.member + 1))
        return whole[0][share].to(self.device), whole[1][share].to(self.device)

    def evaluation_due(self, step: int) -> bool:
        return step % self.spec.train.evaluate_every == 0 or step == self.spec.train.steps

    def evaluate(self, sum_over_workers: Callable[[Tensor], None]) -> float:
        """Held-out loss of the method's model, each worker on its part. Raises LonghaulError if it is not finite."""
        with self.watch.bucket("evaluation"), torch.no_grad(), self.worker.evaluation() as model:
            total = torch.zeros(2, dtype=torch.float64)
            model.eval()
            for inputs, targets in self.held_out:
                inputs, targets = inputs.to(self.device), targets.to(self.device)
                with self._precision():
                    output = model(inputs)
                count = targets.numel()
                total += torch.tensor([self.trained.loss(output, targets).item() * count, count], dtype=torch.float64)
            model.train()
            sum_over_workers(total)
        return float(total[0] / total[1])

    def end_step(
        self,
        step: int,
        loss: float | None,
        evaluation: float | None,
        payload_bytes: int,
        log: TextIO,
        committed: int | None = None,
    ) -> None:
        """Count the step as done and write its record. Raises LonghaulError if training has diverged.

        committed: the last synchronised step, which is needed when a worker is lost.
        """
        if evaluation is not None and not math.isfinite(evaluation):
            raise LonghaulError(f"training diverged: the held-out loss is {evaluation} after step {step}")
        progress, seconds = self.progress, self.watch.lap()
        progress.add(seconds)
        progress.step, progress.clock = step, time.monotonic() - self._zero
        progress.payload_bytes = payload_bytes
        record = Step(
            step=step,
            clock=progress.clock,
            loss=loss,
            lr=self.schedule.lr(step),
            tokens=progress.tokens,
            seconds=seconds,
            payload_bytes=payload_bytes,
            evaluation_loss=evaluation,
            committed=committed,
            metrics=self.worker.metrics(),
        )
        log.write(record.model_dump_json(exclude_none=True) + "\n")
        log.flush()
        if evaluation is not None:
            progress.final_loss, target = evaluation, self.spec.train.target_loss
            if target is not None and progress.time_to_target is None and evaluation <= target:
                aside = progress.seconds["evaluation"] + progress.seconds["checkpoint"]
                progress.time_to_target = progress.clock - aside

    def checkpoint_due(self) -> bool:
        every = self.spec.train.checkpoint_every
        return bool(every) and self.progress.step % every == 0 and not self.finished

    def save(self, payload_bytes: Callable[[], int]) -> None:
        """Write the checkpoint of the step that was done last. Raises OSError (full disk)."""
        state = self.worker.state()  # waits for what is under way, so it comes before the bytes are counted
        self.progress.payload_bytes = payload_bytes()
        self.progress.overruns = self.pacer.overruns
        self.progress.wire_bytes = wire_bytes_sent() - self._wire_zero
        save(self.job.checkpoint_owner, self.progress, self.model, state)

    # --- after the last step ------------------------------------------------------------------------------------------

    def summary(self, payload_bytes: int, wire_bytes_before: int = 0) -> Summary:
        progress, wall = self.progress, time.monotonic() - self._zero - self.absent_seconds
        return Summary(
            rank=self.job.rank,
            member=self.job.member,
            steps=progress.step,
            wall_seconds=wall,
            seconds=progress.seconds,
            unaccounted_seconds=wall - sum(progress.seconds.values()),
            tokens=progress.tokens,
            payload_bytes=payload_bytes,
            wire_bytes_before=wire_bytes_before,
            memory=self.worker.memory(),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            peak_device_bytes=peak_bytes(self.device),
            slot_overruns=self.pacer.overruns,
            final_loss=progress.final_loss,
            time_to_target_seconds=progress.time_to_target,
            started_at=self._started_at,
        )

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.spec.train.precision == "bf16")
