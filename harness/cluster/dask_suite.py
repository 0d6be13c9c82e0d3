"""A suite over the hosts of a Dask cluster, one run per host at a time.

Emulated runs share a host's cores, so two at once would disturb each other: of each host one worker is used, and it
gets its next cell when it has delivered the one before.
"""

from __future__ import annotations

import json
import tarfile
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from harness.cluster.dask_client import connected, version
from harness.cluster.remote_cell import RemoteRequest, RemoteResult, run_remote, unpack
from harness.records.code_hash import code_hash
from harness.records.run_record import Result, read_record
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome, Observer, alone, reused
from netsim.bounded_call import BoundedCaller
from netsim.errors import HostError, LonghaulError

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0  # for a cluster without hosts to get one
ATTEMPTS = 2  # per cell, should hosts leave the cluster under it
LEAVE_SECONDS = 30.0  # for interrupted runs to take their nodes down
SCHEDULER_SECONDS = 60.0  # for the scheduler, or a worker with a record, to answer


@dataclass(frozen=True)
class _Task:
    cell: Cell
    attempt: int = 1


def spread_suite(cells: Sequence[Cell], fresh: bool, observer: Observer, scheduler: str) -> Iterator[CellOutcome]:
    """Every cell's outcome, as it comes in; records are where `run_suite` would have put them.

    InputError or HostError if the cluster cannot be used: nobody answers, no worker, or other source at a worker.
    """
    methods = sorted({cell.spec.method for cell in cells})
    with alone(cells[0].directory.parent), connected(scheduler, partial(_identity, methods)) as client:
        waiting: deque[_Task] = deque()
        for cell in cells:
            if not fresh and (found := reused(cell)) is not None:
                observer.done(found)
                yield found
            else:
                waiting.append(_Task(cell))
        for outcome in _spread(client, waiting, observer):
            observer.done(outcome)
            yield outcome


def _identity(methods: Sequence[str]) -> str:
    """Of this program and of the source that runs of `methods` execute."""
    return json.dumps([version(), *(code_hash(method) for method in methods)])


def _spread(client: Any, waiting: deque[_Task], observer: Observer) -> Iterator[CellOutcome]:
    stop = import_module("distributed").Event(f"longhaul-stop-{uuid.uuid4().hex}", client=client)
    caller = BoundedCaller("the Dask scheduler", SCHEDULER_SECONDS)
    under_way: dict[Any, tuple[_Task, str]] = {}  # by future: what, and at which worker
    last_seen = time.monotonic()
    try:
        while waiting or under_way:
            workers = _workers(client, caller)
            last_seen = time.monotonic() if workers else last_seen
            if time.monotonic() - last_seen > PATIENCE_SECONDS:
                raise LonghaulError(f"the cluster has had no worker for {PATIENCE_SECONDS:.0f} s")
            for worker in _free(workers, {worker for _, worker in under_way.values()}):
                if waiting:
                    task = waiting.popleft()
                    observer.stage(task.cell, f"at {_host(worker)}", task.cell.directory)
                    under_way[_send(client, task.cell, worker, stop.name)] = (task, worker)
            yield from _collected(client, under_way, workers, waiting, caller)
    finally:
        with suppress(TimeoutError):
            caller.run(stop.set)
        _wait(client, list(under_way), LEAVE_SECONDS, "ALL_COMPLETED")


def _workers(client: Any, caller: BoundedCaller) -> set[str]:
    try:
        return set(caller.run(client.nthreads))
    except OSError as error:  # a TimeoutError is one: a scheduler that is stopped never answers
        raise HostError(f"the Dask scheduler does not answer any more: {error}") from None


def _free(workers: Iterable[str], busy: Iterable[str]) -> list[str]:
    """One worker of each host that carries no run, the same one each time."""
    taken = {_host(worker) for worker in busy}
    first = {_host(worker): worker for worker in sorted(workers, reverse=True)}
    return [worker for host, worker in sorted(first.items()) if host not in taken]


def _host(worker: str) -> str:
    return urlsplit(worker).hostname or worker


def _send(client: Any, cell: Cell, worker: str, stop: str) -> Any:
    order = RemoteRequest(spec=cell.spec.model_dump_json(), asked=cell.asked.model_dump_json(), run_id=cell.run_id)
    return client.submit(_at_worker, order, stop, workers=[worker], pure=False, retries=0)


def _at_worker(order: RemoteRequest, stop: str) -> RemoteResult:
    return run_remote(order, import_module("distributed").Event(stop).is_set)


def _collected(
    client: Any,
    under_way: dict[Any, tuple[_Task, str]],
    workers: set[str],
    waiting: deque[_Task],
    caller: BoundedCaller,
) -> Iterator[CellOutcome]:
    """What has come in within a second; cells of workers that have left go back to the front of those that wait."""
    for future in _wait(client, list(under_way), POLL_SECONDS, "FIRST_COMPLETED"):
        task, worker = under_way.pop(future)
        if future.status == "finished":
            yield _delivered(task.cell, caller.run(future.result))
        else:
            yield CellOutcome(task.cell, "failed", reason=f"at {_host(worker)}: {future.exception()!r}")
    for future, (task, worker) in list(under_way.items()):
        if worker not in workers:
            del under_way[future]
            future.cancel()
            if task.attempt < ATTEMPTS:
                waiting.appendleft(_Task(task.cell, task.attempt + 1))
            else:
                yield CellOutcome(task.cell, "failed", reason=f"{ATTEMPTS} hosts left the cluster under it")


def _wait(client: Any, futures: list[Any], seconds: float, until: str) -> list[Any]:
    """Those that are done."""
    if not futures:
        time.sleep(min(seconds, POLL_SECONDS))
        return []
    with suppress(TimeoutError), client.as_current():
        import_module("distributed").wait(futures, timeout=seconds, return_when=until)
    return [future for future in futures if future.done()]


def _delivered(cell: Cell, delivery: RemoteResult) -> CellOutcome:
    if delivery.record:
        try:
            unpack(delivery.record, cell.directory)
        except (tarfile.TarError, OSError) as error:
            return CellOutcome(cell, "failed", reason=f"its record could not be kept: {error}")
    if delivery.state not in ("complete", "invalid"):
        return CellOutcome(cell, "failed", reason=delivery.reason)
    return CellOutcome(cell, delivery.state, read_record(cell.files.result, Result), delivery.reason)
