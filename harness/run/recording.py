"""A run's record, from what its workers left in their directories. In the runner."""

from __future__ import annotations

from harness.records.files import write_atomically
from harness.records.layout import RunDirectory
from harness.records.logs import read_entries, read_worker_log, text_lines
from harness.records.run_record import Result, read_record, write_json
from harness.run.fault_cost import fault_cost
from harness.run.result import Costs, Observed, assemble_result, memory_record
from harness.spec.resolved import ResolvedRun
from harness.worker.job import Summary
from netsim.errors import InputError, LonghaulError


def record_result(run: ResolvedRun, files: RunDirectory, observed: Observed, absent: frozenset[int] | None) -> Result:
    """Writes memory.json, log.txt and, last, result.json.

    absent: with declared faults, the ranks that the run ended without.
    """
    summaries = []
    for rank in sorted(set(range(run.world)) - (absent or frozenset())):
        summaries.append(read_record(files.worker(rank).summary, Summary))
    costs = None if absent is None else costs_of(files, run, summaries, absent)
    result = assemble_result(run, summaries, observed, costs)
    write_json(files.memory, memory_record(summaries))
    _join_logs(files)
    files.go.unlink()
    write_json(files.result, result)
    return result


def costs_of(files: RunDirectory, run: ResolvedRun, summaries: list[Summary], absent: frozenset[int]) -> Costs:
    """The cost of the faults of the run with these files. LonghaulError where a worker left nonsense in them."""
    try:
        return _costs_of(files, run, summaries, absent)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise LonghaulError(f"a worker's log or ledger in {files.path} is damaged: {error!r}") from None


def _costs_of(files: RunDirectory, run: ResolvedRun, summaries: list[Summary], absent: frozenset[int]) -> Costs:
    everyone = range(run.world)
    tokens = {summary.rank: summary.tokens for summary in summaries}
    dead = {rank: read_entries(files.worker(rank).steps) for rank in absent}
    ledgers = {rank: read_entries(files.worker(rank).ledger) for rank in everyone}
    sent = {rank: sum(entry["payload_bytes"] for entry in entries) for rank, entries in ledgers.items()}
    for summary in summaries:  # which also knows of transfers that were never finished
        sent[summary.rank] = max(sent[summary.rank], summary.payload_bytes)
    logs = {rank: read_worker_log(files.worker(rank).worker_log) for rank in everyone}
    sites = [site.name for site in run.topology.sites]
    return fault_cost(run.plan, logs, ledgers, tokens, dead, sum(sent.values()), sites)


def log_tail(files: RunDirectory) -> dict[str, list[str]]:
    """The last lines that each trainer printed."""
    return {worker.path.name: text_lines(worker.log)[-20:] for worker in files.workers()}


def _join_logs(files: RunDirectory) -> None:
    """The log of all processes, each line under its rank."""
    lines = (f"{worker.path.name}: {line}\n" for worker in files.workers() for line in text_lines(worker.log))
    write_atomically(files.log, "".join(lines))
