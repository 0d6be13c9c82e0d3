"""The life of a run, seen by one worker whose peers all stay. In the trainer process (`harness.worker_main`)."""

from __future__ import annotations

import time
from functools import partial

from harness.worker.job import Job, Summary
from harness.worker.site_connection import connect_site
from harness.worker.training import Training
from netsim.errors import LonghaulError

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
            connect_site(job, training.resolved.topology, training.pacer.ready_at, ledger) as links,
        ):
            training.build_worker(links.wan, links.control, links.site)
            training.resume(job.resume_from)
            before = training.progress.payload_bytes  # sent by the processes that this one continues
            wire_before = training.progress.wire_bytes
            links.barrier("barrier", 0)
            training.start_clock()
            while not training.finished:
                step = training.progress.step + 1
                loss = training.train_step(step, links)
                evaluation = None
                if training.evaluation_due(step):
                    evaluation = training.evaluate(partial(links.sum, "evaluation", step))
                training.end_step(step, loss, evaluation, before + links.payload_bytes, log)
                if training.checkpoint_due():
                    with training.watch.bucket("checkpoint"):
                        # Nobody starts one before all have reached its step: the last two of any two workers overlap.
                        links.barrier("checkpoint", step)
                        training.save(lambda: before + links.payload_bytes)
            return training.summary(before + links.payload_bytes, wire_before if job.leads else 0)


def wait_for_go(job: Job) -> None:
    """Report that this trainer is built, and wait for the runner. Raises LonghaulError after `GO_TIMEOUT`."""
    job.files.ready.touch()
    deadline = time.monotonic() + GO_TIMEOUT
    while not job.run_files.go.exists():
        if time.monotonic() > deadline:
            raise LonghaulError(f"the runner gave no sign to begin within {GO_TIMEOUT} s")
        time.sleep(0.02)
