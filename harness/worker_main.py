"""The training process: `python -m harness.worker_main JOB.json`, inside a node."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from harness.elastic.elastic_trainer import ElasticTrainer
from harness.records.code_hash import code_hash
from harness.records.run_record import read_record, write_json
from harness.worker.heartbeat import start_heartbeat
from harness.worker.job import Job
from harness.worker.process_memory import disable_malloc_trim, freeze_gc
from harness.worker.system_calls import restrict_system_calls
from harness.worker.trainer import Trainer
from netsim.errors import InputError, LonghaulError


def main() -> int:
    restrict_system_calls()  # before a method file is loaded
    disable_malloc_trim()
    torch.set_num_threads(1)  # workers share this host's cores; one thread each also keeps results independent of them
    job = read_record(Path(sys.argv[1]), Job)
    try:
        _check_method(job)
        trainer = Trainer(job) if job.store is None else ElasticTrainer(job)
        freeze_gc()
        start_heartbeat(job.files.heartbeat)
        write_json(job.files.summary, trainer.run())
    except (LonghaulError, OSError) as error:
        print(json.dumps({"rank": job.rank, "error": str(error)}), flush=True)
        return 3
    return 0


def _check_method(job: Job) -> None:
    """That a method's file is still the one that the run's id was made of."""
    own = job.spec.method
    if own.endswith(".py") and job.code and code_hash(own) != job.code:
        allowed = "the file as it was when the suite was read: start the suite again"
        raise InputError(job.spec.where, "method", f"{own}, changed", allowed)


if __name__ == "__main__":
    sys.exit(main())
