"""Runs one cell: fresh nodes, the link gate, the trainers, the gate again, and the record of it all."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.code_hash import code_hash
from harness.records.environment import fingerprint
from harness.records.files import remove, write_atomically
from harness.records.layout import RunDirectory, WorkerDirectory
from harness.records.logs import Events, read_worker_log, text_lines
from harness.records.run_record import Result, read_record, write_json
from harness.run.fault_cost import fault_cost
from harness.run.result import Costs, Observed, assemble_result, memory_record
from harness.run.worker_group import WorkerGroup, start_worker_group
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.data import prepare
from harness.worker.job import CheckpointOwner, Summary
from harness.worker.resume import common_step, truncate_log
from netsim.emulated.network import LinkReport, Network, open_network
from netsim.errors import InputError, LinkError, LonghaulError
from netsim.traffic import Plan

NODE_MEMORY = 4 * 10**9  # bytes
STATE_COPIES = 8

_log = logging.getLogger(__name__)

Watch = Callable[[str, Path], None]  # told the stage ("nodes", "gate", "training", ...) and the run's directory


class CellError(LonghaulError):
    """The run did not complete; the message says why."""


@dataclass(frozen=True)
class Cell:
    """A run with its substrate and engine chosen, and where its record goes.

    asked: the spec as the user has it, before a substrate was chosen. The run's id is its hash, so that a run which may
    take any substrate stays the same run when the host has another one to offer.
    """

    run: ResolvedRun
    asked: RunSpec
    run_id: str
    directory: Path

    @classmethod
    def of(cls, spec: RunSpec, runs: Path, asked: RunSpec | None = None) -> Cell:
        asked = asked or spec
        run_id = asked.run_id(code_hash(spec.method))
        return cls(ResolvedRun.of(spec), asked, run_id, runs.absolute() / spec.suite / run_id)

    @property
    def spec(self) -> RunSpec:
        return self.run.spec

    @property
    def files(self) -> RunDirectory:
        return RunDirectory(self.directory)

    def finished(self) -> Result | None:
        """The stored result of a valid earlier run of this very cell."""
        if not self.files.finished:
            return None
        try:
            result = read_record(self.files.result, Result)
        except InputError as error:  # torn or foreign: the cell is run again, the rest of the suite goes on
            _log.warning("%s: its run is made again: %s", self.run_id, error)
            return None
        return result if result.valid and result.id == self.run_id else None


def run_cell(cell: Cell, cache: Path, watch: Watch, started_at: float | None = None, fresh: bool = False) -> Result:
    """The finished run, resumed from its checkpoints where an earlier attempt left any, unless `fresh`.

    Raises CellError; the directory then holds failure.json and no result.
    """
    began = started_at or time.time()
    try:
        resume_from = _make_ready(cell, fresh)
        events = Events(cell.files.events)
    except OSError as error:
        raise _unwritable(cell, error) from error
    with closing(events):
        try:
            return _run(cell, cache, watch, events, began, resume_from)
        except OSError as error:
            raise _unwritable(cell, error) from error
        except LonghaulError as error:
            with suppress(OSError):  # the reason of the failure may be a full disk
                events.add("failed", reason=str(error))
                write_json(cell.files.failure, {"reason": str(error), "log": _log_tail(cell.files)})
            raise CellError(str(error)) from error


def _unwritable(cell: Cell, error: OSError) -> CellError:
    where = error.filename or cell.directory
    return CellError(f"cannot keep the record: {where}: {error.strerror or error}; finished runs are untouched")


def _make_ready(cell: Cell, fresh: bool) -> int:
    """An empty directory, or an interrupted run cut back to the last step that all its workers can resume from.

    Returns that step, 0 for a fresh start.
    """
    ranks, code = range(cell.run.world), code_hash(cell.spec.method)
    step = 0
    if not fresh and _interrupted(cell):
        named = cell.spec, cell.run_id
        step = common_step(
            CheckpointOwner.of(cell.files.worker(rank), *named, rank, cell.run.world, code) for rank in ranks
        )
    if not step:
        if cell.directory.exists():
            shutil.rmtree(cell.directory)
        cell.directory.mkdir(parents=True)
        return 0
    files = cell.files
    for path in (files.go, files.failure, files.result, files.links, files.memory, files.log):
        path.unlink(missing_ok=True)
    for worker in map(files.worker, ranks):
        truncate_log(worker.steps, step)
        truncate_log(worker.ledger, step)
        remove(worker.summary)
    return step


def _interrupted(cell: Cell) -> bool:
    """Whether the directory holds this very cell, begun and neither finished nor changed since.

    A run with declared faults starts from scratch: resumed, it would not meet the same faults.
    """
    if cell.run.declares_faults:
        return False
    try:
        return not cell.files.finished and cell.spec == read_record(cell.files.spec, RunSpec)
    except InputError:
        return False


def _run(cell: Cell, cache: Path, watch: Watch, events: Events, began: float, resume_from: int) -> Result:
    spec, directory, files = cell.spec, cell.directory, cell.files
    write_json(files.spec, spec)
    if resume_from:
        events.add("resumed", step=resume_from)
    watch("data", directory)
    dataset = prepare(spec.data, cell.run.world, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    watch("nodes", directory)
    with open_network(
        cell.run.topology,
        run_id=cell.run_id,
        directory=directory,
        substrate=spec.network.substrate,
        engine=spec.network.engine,
        read_only=[cache.absolute()],
        writable=[directory],
        memory=_memory_limit(cell.run),
    ) as network:
        events.add("nodes", substrate=network.substrate, engine=network.engine)
        environment = {
            **fingerprint(),
            "code": code_hash(spec.method),
            "data": dataset.digest,
            "network": network.environment(),
        }
        write_json(files.environment, environment)
        with start_worker_group(cell.run, cell.run_id, directory, network, dataset, events, resume_from) as trainers:
            watch("gate", directory)
            before = _gate(network, spec, events)
            counted = [node.counters().tx_bytes for node in network.nodes]
            trainers.wait_until_ready()
            files.go.touch()
            events.add("go")
            watch("training", directory)
            with _timeline(network, trainers, events):
                trainers.wait()
            absent = frozenset(trainers.absent)
            wire = tuple(n.counters().tx_bytes - c for n, c in zip(network.nodes, counted, strict=True))
            events.add("trained")
        watch("gate", directory)
        after = _gate_after(network, spec, events)
        reports = {"before": before, "after": after}
        write_json(files.links, {when: found and found.to_json() for when, found in reports.items()})
        engine, substrate = network.engine, network.substrate
    problems = tuple(f"after the run: {problem}" for problem in after.problems()) if after else ()
    observed = Observed(cell.run_id, substrate, engine, wire, problems, began, resume_from)
    return _record(cell, observed, absent if cell.run.declares_faults else None)


def costs_of(files: RunDirectory, plan: Plan, summaries: list[Summary], absent: frozenset[int]) -> Costs:
    """The cost of the faults of the run with these files."""

    def read(which: Callable[[WorkerDirectory], Path], ranks: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
        return {rank: read_worker_log(which(files.worker(rank))) for rank in ranks}

    everyone = range(plan.sites)
    tokens = {summary.rank: summary.tokens for summary in summaries}
    dead = read(lambda worker: worker.steps, absent)
    ledgers = read(lambda worker: worker.ledger, everyone)
    sent = {rank: sum(entry["payload_bytes"] for entry in entries) for rank, entries in ledgers.items()}
    for summary in summaries:  # which also knows of transfers that were never finished
        sent[summary.rank] = max(sent[summary.rank], summary.payload_bytes)
    logs = read(lambda worker: worker.worker_log, everyone)
    return fault_cost(plan, logs, ledgers, tokens, dead, sum(sent.values()))


def _memory_limit(run: ResolvedRun) -> int:
    """Bytes for a node where the substrate bounds it: interpreter and activations, and the training state many times.

    A bound against what runs away, not a budget: nothing that a sound run needs comes near it.
    """
    return NODE_MEMORY + STATE_COPIES * sum(run.heaviest_memory().values())


@contextmanager
def _timeline(network: Network, trainers: WorkerGroup, events: Events) -> Iterator[None]:
    """The topology's events happen from now on, where it has any."""
    if not network.topology.timeline:
        yield
        return
    with network.play(trainers.site_event) as player:
        zero = time.time()
        yield
    if player.error is not None:
        raise LinkError(f"the timeline could not be played: {player.error}")
    for one in player.played:
        if one.kind in ("links", "traffic"):
            events.add_at(zero + one.done, one.kind, due=round(one.due, 3), detail=one.detail)


def _record(cell: Cell, observed: Observed, absent: frozenset[int] | None) -> Result:
    """absent: with declared faults, the ranks that the run ended without."""
    summaries = []
    for rank in sorted(set(range(cell.run.world)) - (absent or frozenset())):
        summaries.append(read_record(cell.files.worker(rank).summary, Summary))
    costs = None if absent is None else costs_of(cell.files, cell.run.plan, summaries, absent)
    result = assemble_result(cell.run, summaries, observed, costs)
    write_json(cell.files.memory, memory_record(summaries))
    _join_logs(cell.files)
    cell.files.go.unlink()
    write_json(cell.files.result, result)
    return result


def _gate(network: Network, spec: RunSpec, events: Events) -> LinkReport | None:
    """The short link check before a run, with one retry; a link outside tolerance stops the run."""
    if not spec.network.gate:
        return None
    report = network.check(short=True)
    if not report.passed:
        events.add("gate", passed=False, problems=report.problems())
        report = network.check(short=True)
    events.add("gate", passed=report.passed)
    if not report.passed:
        raise LinkError("; ".join(report.problems()))
    return report


def _gate_after(network: Network, spec: RunSpec, events: Events) -> LinkReport | None:
    """The same after a run; what it finds makes the run invalid, but the measurements stay."""
    if not spec.network.gate:
        return None
    report = network.check(short=True)
    if not report.passed:
        report = network.check(short=True)
    events.add("gate", passed=report.passed)
    return report


def _log_tail(files: RunDirectory) -> dict[str, list[str]]:
    return {worker.path.name: text_lines(worker.log)[-20:] for worker in files.workers()}


def _join_logs(files: RunDirectory) -> None:
    """The log of all processes, each line under its rank."""
    lines = (f"{worker.path.name}: {line}\n" for worker in files.workers() for line in text_lines(worker.log))
    write_atomically(files.log, "".join(lines))
