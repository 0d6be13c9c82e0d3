"""A run's record, from what its workers left in their directories. In the runner."""

from __future__ import annotations

from harness.records.files import write_atomically
from harness.records.layout import RunDirectory, worker_ids
from harness.records.logs import text_lines
from harness.records.run_record import Result, read_record, write_json
from harness.run.fault_records import costs_of
from harness.run.result import Observed, assemble_result, memory_record
from harness.spec.resolved import ResolvedRun
from harness.worker.job import Summary


def record_result(run: ResolvedRun, files: RunDirectory, observed: Observed, absent: frozenset[int] | None) -> Result:
    """Writes memory.json, log.txt and, last, result.json.

    absent: with declared faults, the ranks that the run ended without.
    """
    summaries = []
    for worker in worker_ids(run.members):
        if worker.rank not in (absent or ()):
            summaries.append(read_record(files.worker(*worker).summary, Summary))
    costs = None if absent is None else costs_of(files, run, summaries, absent, observed.partitions)
    result = assemble_result(run, summaries, observed, costs)
    write_json(files.memory, memory_record(summaries))
    _join_logs(files)
    files.go.unlink()
    write_json(files.result, result)
    return result


def _join_logs(files: RunDirectory) -> None:
    """The log of all processes, each line under its rank."""
    lines = (f"{worker.path.name}: {line}\n" for worker in files.workers() for line in text_lines(worker.log))
    write_atomically(files.log, "".join(lines))
