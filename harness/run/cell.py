"""Runs one cell: fresh nodes, the link gate, the trainers, the gate again, and the record of it all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.records.code_hash import code_hash
from harness.records.environment import fingerprint
from harness.records.layout import RunDirectory
from harness.records.logs import Events
from harness.records.run_record import Result, read_record, write_json
from harness.run.attempt import prepare_attempt
from harness.run.link_gate import check_after, check_before
from harness.run.recording import log_tail, record_result
from harness.run.result import Observed
from harness.run.worker_group import WorkerGroup, start_worker_group
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.data import prepare
from netsim.emulated.network import Network, open_network
from netsim.errors import InputError, LinkError, LonghaulError

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
        resume_from = prepare_attempt(cell.run, cell.run_id, cell.files, code_hash(cell.spec.method), fresh)
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
                write_json(cell.files.failure, {"reason": str(error), "log": log_tail(cell.files)})
            raise CellError(str(error)) from error


def _unwritable(cell: Cell, error: OSError) -> CellError:
    where = error.filename or cell.directory
    return CellError(f"cannot keep the record: {where}: {error.strerror or error}; finished runs are untouched")


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
            before = check_before(network, spec.network.gate, events)
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
        after = check_after(network, spec.network.gate, events)
        reports = {"before": before, "after": after}
        write_json(files.links, {when: found and found.to_json() for when, found in reports.items()})
        engine, substrate = network.engine, network.substrate
    problems = tuple(f"after the run: {problem}" for problem in after.problems()) if after else ()
    observed = Observed(cell.run_id, substrate, engine, wire, problems, began, resume_from)
    return record_result(cell.run, files, observed, absent if cell.run.declares_faults else None)


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
