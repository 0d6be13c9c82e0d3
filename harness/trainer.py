"""One worker's training process: `python -m harness.trainer JOB.json`, inside a node.

Every step passes the same stations: data, forward and backward, local update, the paced slot's end, synchronisation by
the method's plan, and now and then evaluation and a checkpoint. Each is timed into its bucket.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import IO

import torch

from algorithms.inner import Schedule
from algorithms.method import Worker, WorkerSetup
from harness.clock import Slots, Stopwatch
from harness.connection import connect_control, connect_wan
from harness.data import Shard, held_out_batches
from harness.job import GO, Job, Summary
from harness.model import build_model, mean_loss
from harness.records import Step, read_json, write_json
from netsim.documents import validate
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
        self.method = self.spec.resolve_method()
        self.plan = self.method.plan(self.spec.model, job.world, train.steps, self.spec.seed)
        view = self.method.view(self.spec.model, job.world, job.rank, self.spec.seed)
        self.model = build_model(self.spec.model, self.spec.seed, view)
        self.model.balance_weight = train.balance_weight
        self.shard = Shard(job.shard)
        self.held_out = held_out_batches(
            job.held_out, train.evaluation_batches, train.batch, self.spec.model.sequence, job.rank, job.world
        )
        base = Schedule(train.optimizer.lr, train.warmup, train.steps, train.floor)
        self.schedule = self.method.schedule(base)
        self.watch = Stopwatch()
        self.slots = Slots(self.spec.compute.step_seconds, self.spec.compute.backward_share)
        self.tokens = 0
        self.started_at = 0.0

    def run(self) -> Summary:
        _wait_for(self.job.directory / GO)
        with (
            (self.job.rank_directory / "ledger.jsonl").open("w", encoding="utf-8") as ledger,
            connect_wan(self.job, self.slots.ready_at, ledger) as self.wan,
            connect_control(self.job) as self.control,
        ):
            return self._train()

    def _train(self) -> Summary:
        worker = self.method.worker(
            WorkerSetup(
                model=self.model,
                shape=self.spec.model,
                plan=self.plan,
                rank=self.job.rank,
                exchange=self.wan,
                control=self.control,
                optimizer=self.spec.train.optimizer,
                seed=self.spec.seed,
            )
        )
        totals: dict[str, float] = {}
        loss: float | None = None
        to_target: float | None = None
        step = 0
        self._barrier()
        self.watch.lap()
        self.started_at, begin = time.time(), time.monotonic()
        with (self.job.rank_directory / "steps.jsonl").open("w", encoding="utf-8") as log:
            for step in range(1, self.spec.train.steps + 1):
                training_loss = self._step(worker, step)
                evaluation = self._evaluate(worker, step)
                seconds = self.watch.lap()
                clock = time.monotonic() - begin
                for name, value in seconds.items():
                    totals[name] = totals.get(name, 0.0) + value
                self._log(log, worker, step, clock, training_loss, evaluation, seconds)
                if evaluation is not None:
                    loss, target = evaluation, self.spec.train.target_loss
                    if target is not None and to_target is None and loss <= target:
                        to_target = clock - totals["evaluation"] - totals["checkpoint"]
                        if self.spec.train.stop_at_target:
                            break
            wall = time.monotonic() - begin
        return Summary(
            rank=self.job.rank,
            steps=step,
            wall_seconds=wall,
            seconds=totals,
            unaccounted_seconds=wall - sum(totals.values()),
            tokens=self.tokens,
            payload_bytes=self.wan.ledger.total,
            memory=worker.memory(),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            slot_overruns=self.slots.overruns,
            final_loss=loss,
            time_to_target_seconds=to_target,
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
                (objective + self.model.auxiliary_loss()).backward()
                worker.local_update(step, lr)
            self.tokens += inputs.numel()
        with self.watch.bucket("pacing"):
            self.slots.wait()
        before, start = self.wan.waited_seconds, time.monotonic()
        with self.watch.bucket("compute"):
            worker.synchronise(step, lr)
        waited = self.wan.waited_seconds - before
        self.watch.move(waited, "compute", "communication")
        self.slots.owe(time.monotonic() - start - waited)
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

    def _barrier(self) -> None:
        self._sum(torch.zeros(1, dtype=torch.float64), "barrier", 0)

    def _log(
        self,
        log: IO[str],
        worker: Worker,
        step: int,
        clock: float,
        loss: float | None,
        evaluation: float | None,
        seconds: dict[str, float],
    ) -> None:
        record = Step(
            step=step,
            clock=clock,
            loss=loss,
            lr=self.schedule.lr(step),
            tokens=self.tokens,
            seconds=seconds,
            payload_bytes=self.wan.ledger.total,
            evaluation_loss=evaluation,
            metrics=worker.metrics(),
        )
        log.write(record.model_dump_json(exclude_none=True) + "\n")
        log.flush()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + GO_TIMEOUT
    while not path.exists():
        if time.monotonic() > deadline:
            raise LonghaulError(f"the runner did not say go within {GO_TIMEOUT} s")
        time.sleep(0.02)


def main() -> int:
    torch.set_num_threads(1)  # workers share this host's cores; one thread each also keeps results independent of them
    path = Path(sys.argv[1])
    job = validate(Job, read_json(path), str(path))
    try:
        summary = Trainer(job).run()
    except LonghaulError as error:
        print(json.dumps({"rank": job.rank, "error": str(error)}), flush=True)
        return 3
    write_json(job.rank_directory / "summary.json", summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
