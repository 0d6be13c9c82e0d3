"""The life of a run, seen by one worker whose peers all stay. In the trainer process (`harness.worker_main`)."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from algorithms.exchange import Exchange
from harness.worker.connect import connect_control, connect_wan
from harness.worker.job import Job, Summary
from harness.worker.training import Training
from netsim.errors import LonghaulError
from netsim.traffic import Transfer, WireType

GO_TIMEOUT = 300.0


class Trainer:
    """Builds the worker at once, connects when the runner says go, trains to the end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.training = Training(job)

    def run(self) -> Summary:
        """Raises PeerError if a peer fails, LonghaulError if the training diverges, OSError if the disk is full."""
        training, job = self.training, self.job
        wait_for_go(job)
        with (
            job.files.ledger.open("a", encoding="utf-8") as ledger,
            job.files.steps.open("a", encoding="utf-8") as log,
            connect_wan(job, training.resolved.topology, training.pacer.ready_at, ledger) as wan,
            connect_control(job) as control,
        ):
            everyone = tuple(range(job.world))
            training.build_worker(wan, control)
            training.resume(job.resume_from)
            before = training.progress.payload_bytes  # sent by the processes that this one continues
            wire_before = training.progress.wire_bytes
            barrier(control, "barrier", 0, everyone)
            training.start_clock()
            while not training.finished:
                step = training.progress.step + 1
                loss = training.train_step(step, wan)
                evaluation = None
                if training.evaluation_due(step):
                    evaluation = training.evaluate(partial(sum_over, control, "evaluation", step, everyone))
                training.end_step(step, loss, evaluation, before + wan.ledger.total, log)
                if training.checkpoint_due():
                    with training.watch.bucket("checkpoint"):
                        # Nobody starts one before all have reached its step: the last two of any two workers overlap.
                        barrier(control, "checkpoint", step, everyone)
                        training.save(lambda: before + wan.ledger.total)
            return training.summary(before + wan.ledger.total, wire_before)


def wait_for_go(job: Job) -> None:
    """Report that this trainer is built, and wait for the runner. Raises LonghaulError after `GO_TIMEOUT`."""
    job.files.ready.touch()
    deadline = time.monotonic() + GO_TIMEOUT
    while not job.run_files.go.exists():
        if time.monotonic() > deadline:
            raise LonghaulError(f"the runner did not say go within {GO_TIMEOUT} s")
        time.sleep(0.02)


def sum_over(control: Exchange, name: str, step: int, members: tuple[int, ...], values: Tensor) -> None:
    """Sum `values` over `members`, in place. Raises PeerError."""
    control.run(step, [(Transfer(name, values.numel(), members, WireType.FP64), values)])


def barrier(control: Exchange, name: str, step: int, members: tuple[int, ...]) -> None:
    """Wait until all `members` have come. Raises PeerError."""
    sum_over(control, name, step, members, torch.zeros(1, dtype=torch.float64))
