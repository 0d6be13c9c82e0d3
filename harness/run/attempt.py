"""The directory that a run begins in: empty, or cut back to where an earlier attempt can be resumed. In the runner."""

from __future__ import annotations

import shutil

from harness.records.files import remove
from harness.records.layout import RunDirectory
from harness.records.run_record import read_record
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.job import CheckpointOwner
from harness.worker.resume import common_step, truncate_log
from netsim.errors import InputError


def prepare_attempt(run: ResolvedRun, run_id: str, files: RunDirectory, code: str, fresh: bool) -> int:
    """An empty directory, or an interrupted run cut back to the last step that all its workers can resume from.

    Returns that step, 0 for a fresh start.
    """
    workers = [files.worker(rank) for rank in range(run.world)]
    step = 0
    if not fresh and _interrupted(run, files):
        step = common_step(
            CheckpointOwner.of(worker, run.spec, run_id, rank, run.world, code) for rank, worker in enumerate(workers)
        )
    if not step:
        if files.path.exists():
            shutil.rmtree(files.path)
        files.path.mkdir(parents=True)
        return 0
    for path in (files.go, files.failure, files.result, files.links, files.memory, files.log):
        path.unlink(missing_ok=True)
    for worker in workers:
        truncate_log(worker.steps, step)
        truncate_log(worker.ledger, step)
        remove(worker.summary)
    return step


def _interrupted(run: ResolvedRun, files: RunDirectory) -> bool:
    """Whether the directory holds this very run, begun and neither finished nor changed since.

    A run with declared faults starts from scratch: resumed, it would not meet the same faults.
    """
    if run.declares_faults:
        return False
    try:
        return not files.finished and run.spec == read_record(files.spec, RunSpec)
    except InputError:
        return False
