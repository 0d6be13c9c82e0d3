"""The training process: `python -m harness.worker_main JOB.json`, inside a node."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from harness.elastic.elastic_trainer import ElasticTrainer
from harness.records.run_record import read_record, write_json
from harness.worker.heartbeat import start_heartbeat
from harness.worker.job import Job
from harness.worker.process_memory import disable_malloc_trim, freeze_gc
from harness.worker.trainer import Trainer
from netsim.errors import LonghaulError


def main() -> int:
    disable_malloc_trim()
    torch.set_num_threads(1)  # workers share this host's cores; one thread each also keeps results independent of them
    job = read_record(Path(sys.argv[1]), Job)
    try:
        trainer = Trainer(job) if job.store is None else ElasticTrainer(job)
        freeze_gc()
        start_heartbeat(job.files.heartbeat)
        summary = trainer.run()
    except (LonghaulError, OSError) as error:
        print(json.dumps({"rank": job.rank, "error": str(error)}), flush=True)
        return 3
    write_json(job.files.summary, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
