"""The logs and ledgers from which the cost of a run's faults follows. In the runner."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.layout import RunDirectory
from harness.records.logs import read_entries, read_worker_log
from harness.run.fault_cost import fault_cost
from harness.run.result import Costs
from harness.spec.resolved import ResolvedRun
from harness.worker.job import Summary
from netsim.errors import InputError, LonghaulError


def costs_of(
    files: RunDirectory,
    run: ResolvedRun,
    summaries: list[Summary],
    absent: frozenset[int],
    partitions: Sequence[float] = (),
) -> Costs:
    """The cost of the faults of the run with these files. LonghaulError where a worker left nonsense in them.

    partitions: when the timeline cut the network, seconds since the epoch.
    """
    try:
        return _costs_of(files, run, summaries, absent, partitions)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise LonghaulError(f"a worker's log or ledger in {files.path} is damaged: {error!r}") from None


def _costs_of(
    files: RunDirectory,
    run: ResolvedRun,
    summaries: list[Summary],
    absent: frozenset[int],
    partitions: Sequence[float],
) -> Costs:
    everyone = range(run.world)
    tokens = {summary.rank: summary.tokens for summary in summaries}
    dead = {rank: read_entries(files.worker(rank).steps) for rank in absent}
    ledgers = {rank: read_entries(files.worker(rank).ledger) for rank in everyone}
    sent = {rank: sum(entry["payload_bytes"] for entry in entries) for rank, entries in ledgers.items()}
    for summary in summaries:  # which also knows of transfers that were never finished
        sent[summary.rank] = max(sent[summary.rank], summary.payload_bytes)
    logs = {rank: read_worker_log(files.worker(rank).worker_log) for rank in everyone}
    sites = [site.name for site in run.topology.sites]
    return fault_cost(run.plan, logs, ledgers, tokens, dead, sum(sent.values()), sites, partitions)
