"""Runs one cell: fresh nodes, the link gate, the trainers, the gate again, and the record of it all."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data import Dataset, prepare
from harness.environment import fingerprint
from harness.identity import ROOT, code_identity
from harness.job import GO, Job, Summary
from harness.network import LinkReport, Network, NodeProcess, open_network
from harness.outcome import Observed, assemble, memory_record
from harness.records import Result, read_json, write_json
from harness.resume import common_step, cut_back
from harness.suite import RunSpec
from netsim.documents import validate
from netsim.errors import InputError, LinkError, LonghaulError
from netsim.traffic import Plan

POLL_SECONDS = 0.1
VERIFY_SECONDS = 2.0
STOP_SECONDS = 20.0  # for the other trainers to end after the first has

Watch = Callable[[str, Path], None]  # told the stage ("nodes", "gate", "training", ...) and the run's directory


class CellError(LonghaulError):
    """The run did not complete; the message says why."""


@dataclass(frozen=True)
class Cell:
    """A spec with its substrate and engine resolved, and where its record goes."""

    spec: RunSpec
    run_id: str
    directory: Path

    @classmethod
    def of(cls, spec: RunSpec, runs: Path) -> Cell:
        run_id = spec.run_id(code_identity(spec.method))
        return cls(spec, run_id, runs.absolute() / spec.suite / run_id)

    def finished(self) -> Result | None:
        """The stored result of a valid earlier run of this very cell."""
        path = self.directory / "result.json"
        if not path.is_file():
            return None
        result = validate(Result, read_json(path), str(path))
        return result if result.valid else None


class Events:
    """events.jsonl: what happened when, in seconds since the cell began."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._begin = time.monotonic()

    def add(self, kind: str, **facts: Any) -> None:
        line = {"at": round(time.monotonic() - self._begin, 3), "kind": kind, **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def run_cell(cell: Cell, cache: Path, watch: Watch, started_at: float | None = None, fresh: bool = False) -> Result:
    """The finished run, resumed from its checkpoints where an earlier attempt left any, unless `fresh`.

    Raises CellError; the directory then holds failure.json and no result.
    """
    began = started_at or time.time()
    try:
        resume_from = _make_ready(cell, fresh)
        events = Events(cell.directory / "events.jsonl")
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
                write_json(cell.directory / "failure.json", {"reason": str(error), "log": _log_tail(cell.directory)})
            raise CellError(str(error)) from error


def _unwritable(cell: Cell, error: OSError) -> CellError:
    where = error.filename or cell.directory
    return CellError(f"cannot keep the record: {where}: {error.strerror or error}; finished runs are untouched")


def _make_ready(cell: Cell, fresh: bool) -> int:
    """An empty directory, or an interrupted run cut back to the last step that all its workers can resume from.

    Returns that step, 0 for a fresh start.
    """
    ranks = range(len(cell.spec.topology["sites"]))
    step = 0 if fresh or not _interrupted(cell) else common_step(cell.directory, ranks, cell.run_id)
    if not step:
        if cell.directory.exists():
            shutil.rmtree(cell.directory)
        cell.directory.mkdir(parents=True)
        return 0
    for name in (GO, "failure.json", "result.json", "links.json", "memory.json", "log.txt"):
        (cell.directory / name).unlink(missing_ok=True)
    for rank in ranks:
        for name in ("steps.jsonl", "ledger.jsonl"):
            cut_back(cell.directory / f"rank-{rank}" / name, step)
        (cell.directory / f"rank-{rank}" / "summary.json").unlink(missing_ok=True)
    return step


def _interrupted(cell: Cell) -> bool:
    """Whether the directory holds this very cell, begun and neither finished nor changed since."""
    try:
        return not (cell.directory / "result.json").exists() and cell.spec == validate(
            RunSpec, read_json(cell.directory / "spec.json"), str(cell.directory)
        )
    except InputError:
        return False


def _run(cell: Cell, cache: Path, watch: Watch, events: Events, began: float, resume_from: int) -> Result:
    spec, directory = cell.spec, cell.directory
    topology, method = spec.resolve_topology(), spec.resolve_method()
    plan = method.plan(spec.model, len(topology.sites), spec.train.steps, spec.seed)
    write_json(directory / "spec.json", spec)
    if resume_from:
        events.add("resumed", step=resume_from)
    watch("data", directory)
    dataset = prepare(spec.data, len(topology.sites), spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    watch("nodes", directory)
    with open_network(
        topology,
        run_id=cell.run_id,
        directory=directory,
        substrate=spec.network.substrate,
        engine=spec.network.engine,
        read_only=[cache.absolute()],
        writable=[directory],
    ) as network:
        events.add("nodes", substrate=network.substrate, engine=network.engine)
        environment = {
            **fingerprint(),
            "code": code_identity(spec.method),
            "data": dataset.digest,
            "network": network.environment(),
        }
        write_json(directory / "environment.json", environment)
        with _trainers(cell, network, dataset, events, resume_from) as processes:
            watch("gate", directory)
            before = _gate(network, spec, events)
            counted = [node.counters().tx_bytes for node in network.nodes]
            (directory / GO).touch()
            events.add("go")
            watch("training", directory)
            _await(processes, network, directory)
            wire = tuple(n.counters().tx_bytes - c for n, c in zip(network.nodes, counted, strict=True))
            events.add("trained")
        watch("gate", directory)
        after = _gate_after(network, spec, events)
        reports = {"before": before, "after": after}
        write_json(directory / "links.json", {when: found and found.to_json() for when, found in reports.items()})
        engine, substrate = network.engine, network.substrate
    problems = tuple(f"after the run: {problem}" for problem in after.problems()) if after else ()
    observed = Observed(cell.run_id, substrate, engine, wire, problems, began, resume_from)
    return _record(cell, plan, observed)


def _record(cell: Cell, plan: Plan, observed: Observed) -> Result:
    summaries = []
    for rank in range(plan.sites):
        path = cell.directory / f"rank-{rank}" / "summary.json"
        summaries.append(validate(Summary, read_json(path), str(path)))
    result = assemble(cell.spec, plan, summaries, observed)
    write_json(cell.directory / "memory.json", memory_record(summaries))
    _join_logs(cell.directory)
    (cell.directory / GO).unlink()
    write_json(cell.directory / "result.json", result)
    return result


@contextmanager
def _trainers(
    cell: Cell, network: Network, dataset: Dataset, events: Events, resume_from: int
) -> Iterator[list[NodeProcess]]:
    """One trainer per node, started at once: they import torch while the links are being checked."""
    processes: list[NodeProcess] = []
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "HOME": str(cell.directory),
    }
    try:
        for rank, node in enumerate(network.nodes):
            job = Job(
                spec=cell.spec,
                run_id=cell.run_id,
                rank=rank,
                wan_addresses=tuple(n.wan_address for n in network.nodes),
                control_addresses=tuple(n.mgmt_address for n in network.nodes),
                directory=cell.directory,
                shard=dataset.shards[rank],
                held_out=dataset.held_out,
                resume_from=resume_from,
            )
            job.rank_directory.mkdir(exist_ok=True)
            job.rank_directory.chmod(0o777)  # the trainer runs as nobody in a container
            write_json(job.rank_directory / "job.json", job)
            argv = [sys.executable, "-m", "harness.trainer", str(job.rank_directory / "job.json")]
            processes.append(node.start(argv, environment, job.rank_directory / "log.txt"))
        events.add("trainers")
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


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


def _await(processes: list[NodeProcess], network: Network, directory: Path) -> None:
    """Until all trainers have ended well. One that fails ends the run; a network that broke does, too."""
    verified = time.monotonic()
    deadline: float | None = None
    while True:
        codes = [process.poll() for process in processes]
        if failed := [rank for rank, code in enumerate(codes) if code]:
            reasons = "; ".join(f"rank {rank} (exit {codes[rank]}): {_why(directory, rank)}" for rank in failed)
            raise CellError(f"training failed: {reasons}")
        if all(code == 0 for code in codes):
            return
        if any(code == 0 for code in codes):
            deadline = deadline or time.monotonic() + STOP_SECONDS
            if time.monotonic() > deadline:
                late = [rank for rank, code in enumerate(codes) if code is None]
                raise CellError(f"ranks {late} did not end within {STOP_SECONDS:.0f} s of the others")
        if time.monotonic() - verified > VERIFY_SECONDS:
            network.verify()
            verified = time.monotonic()
        time.sleep(POLL_SECONDS)


def _why(directory: Path, rank: int) -> str:
    lines = _lines(directory / f"rank-{rank}" / "log.txt")
    return lines[-1] if lines else "it left no message"


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def _log_tail(directory: Path) -> dict[str, list[str]]:
    return {path.parent.name: _lines(path)[-20:] for path in sorted(directory.glob("rank-*/log.txt"))}


def _join_logs(directory: Path) -> None:
    """log.txt of all processes, each line under its rank."""
    with (directory / "log.txt").open("w", encoding="utf-8") as file:
        for path in sorted(directory.glob("rank-*/log.txt")):
            file.writelines(f"{path.parent.name}: {line}\n" for line in _lines(path))
