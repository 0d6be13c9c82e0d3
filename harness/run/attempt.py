"""The directory that a run begins in: empty, or cut back to where an earlier attempt can be resumed. In the runner."""

from __future__ import annotations

import shutil

from harness.records.files import remove
from harness.records.layout import RunDirectory, worker_ids
from harness.records.run_record import read_record, write_json
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.job import CheckpointOwner
from harness.worker.resume import common_step, truncate_log
from netsim.errors import InputError


def prepare_attempt(run: ResolvedRun, run_id: str, files: RunDirectory, code: str, fresh: bool) -> int:
    """A directory that holds the spec alone, or an interrupted run cut back to a step that all its workers resume from.

    Returns that step, the last that there is; 0 for a fresh start.
    """
    workers = {worker: files.worker(*worker) for worker in worker_ids(run.members)}
    step = 0
    # A run with declared faults starts from scratch: resumed, it would not meet the same faults.
    if not (fresh or run.declares_faults or files.finished):
        try:
            begun = read_record(files.spec, RunSpec)
        except InputError:
            begun = None
        if begun == run.spec:
            step = common_step(
                CheckpointOwner.of(own, run.spec, run_id, worker.rank, run.world, code)
                for worker, own in workers.items()
            )
    if not step:
        if files.path.exists():
            shutil.rmtree(files.path)
        files.path.mkdir(parents=True)
        write_json(files.spec, run.spec)
        return 0
    for path in (files.go, files.failure, files.result, files.links, files.memory, files.log):
        path.unlink(missing_ok=True)
    for own in workers.values():
        truncate_log(own.steps, step)
        truncate_log(own.ledger, step)
        remove(own.summary)
    return step
