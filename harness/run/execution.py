"""Runs one cell: fresh nodes, the link gate, the trainers, the gate again, and the record of it all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.records.code_hash import module_hashes
from harness.records.environment import fingerprint
from harness.records.logs import Events
from harness.records.run_record import Result, write_json
from harness.run.attempt import prepare_attempt
from harness.run.cell import Cell
from harness.run.failure import record_failure
from harness.run.link_gate import checked_links
from harness.run.own_code import OwnCode
from harness.run.recording import record_result
from harness.run.result import Observed
from harness.run.worker_group import WorkerGroup, started
from harness.spec.resolved import ResolvedRun
from harness.worker.data import prepare
from netsim.emulated.network import Network, open_network
from netsim.emulated.substrates.gpus import chosen_gpus, gpus_of_sites
from netsim.errors import HostError, LinkError, LonghaulError

NODE_MEMORY = 4 * 10**9  # bytes
STATE_COPIES = 8

Watch = Callable[[str, Path], None]  # told the stage ("nodes", "gate", "training", ...) and the run's directory


class CellError(LonghaulError):
    """The run did not complete; the message says why."""


def run_cell(cell: Cell, cache: Path, watch: Watch, started_at: float | None = None, fresh: bool = False) -> Result:
    """The finished run, resumed from its checkpoints where an earlier attempt left any, unless `fresh`.

    Raises CellError; the directory then holds failure.json and no result.
    """
    began = started_at or time.time()
    try:
        resume_from = prepare_attempt(cell.run, cell.run_id, cell.files, cell.code, fresh)
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
                record_failure(cell.files, str(error))
            raise CellError(str(error)) from error


def _unwritable(cell: Cell, error: OSError) -> CellError:
    where = error.filename or cell.directory
    return CellError(f"cannot keep the record: {where}: {error.strerror or error}; finished runs are untouched")


def _run(cell: Cell, cache: Path, watch: Watch, events: Events, began: float, resume_from: int) -> Result:
    spec, directory, files = cell.spec, cell.directory, cell.files
    if resume_from:
        events.add("resumed", step=resume_from)
    watch("data", directory)
    dataset = prepare(spec.data, cell.run.world, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    memory, own = _memory_limit(cell.run), OwnCode.of(spec)
    gpus = chosen_gpus("none" if spec.compute.device == "cpu" else "auto")
    gpus_by_site = gpus_of_sites(gpus, [site.name for site in cell.run.topology.sites])
    if spec.compute.device == "cuda" and not gpus:
        raise HostError("compute.device: cuda, but this host has no NVIDIA GPU; allowed: cpu, or auto")
    watch("nodes", directory)
    with open_network(
        cell.run.topology,
        run_id=cell.run_id,
        directory=directory,
        substrate=spec.network.substrate,
        engine=spec.network.engine,
        read_only=[cache.absolute(), *own.visible],
        writable=[directory],
        memory=memory,
        gpus=gpus,
        confined=True,
    ) as network:
        if gpus and network.substrate != "docker" and os.geteuid() == 0:
            raise HostError(f"GPU workers that root starts need substrate docker, not {network.substrate}")
        events.add("nodes", substrate=network.substrate, engine=network.engine)
        environment = {
            **fingerprint(),
            "code": cell.code,
            "modules": module_hashes(spec.method),
            "data": dataset.digest,
            "network": network.environment(),
        }
        write_json(files.environment, environment)
        group = WorkerGroup(cell.run, cell.run_id, cell.code, directory, network, dataset, events, own, gpus_by_site)
        watch("gate", directory)
        with (
            started(group, resume_from) as trainers,
            checked_links(network, spec.network.gate, events) as links,
        ):
            counted = [node.counters().tx_bytes for node in network.nodes]
            trainers.wait_until_ready()
            files.go.touch()
            events.add("go")
            watch("training", directory)
            with _timeline(network, trainers, events) as timeline:
                trainers.wait()
            absent = frozenset(trainers.absent)
            wire = tuple(n.counters().tx_bytes - c for n, c in zip(network.nodes, counted, strict=True))
            events.add("trained")
            watch("gate", directory)
        write_json(files.links, links.to_json())
        engine, substrate = network.engine, network.substrate
    observed = Observed(
        cell.run_id,
        substrate,
        engine,
        wire,
        links.problems(),
        began,
        resume_from,
        (*links.marks(), *timeline.crowded),
        tuple(timeline.partitions),
    )
    return record_result(cell.run, files, observed, absent if cell.run.declares_faults else None)


def _memory_limit(run: ResolvedRun) -> int:
    """Bytes for a node where the substrate bounds it: interpreter, activations and many times its state, by worker.

    A bound against what runs away, not a budget: nothing that a sound run needs comes near it.
    """
    return max(run.members) * (NODE_MEMORY + STATE_COPIES * sum(run.heaviest_memory().values()))


@dataclass
class _PlayedTimeline:
    """What is known of a timeline afterwards.

    partitions: when they began, seconds since the epoch.  crowded: cross-traffic that found no room.
    """

    partitions: list[float] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)


@contextmanager
def _timeline(network: Network, trainers: WorkerGroup, events: Events) -> Iterator[_PlayedTimeline]:
    """The topology's events happen from now on, where it has any."""
    timeline = _PlayedTimeline()
    if not network.topology.timeline:
        yield timeline
        return
    due = {event.start for event in network.topology.timeline.events if event.partition}
    with network.play(trainers.site_event) as player:
        zero = time.time()
        yield timeline
    if player.error is not None:
        raise LinkError(f"the timeline could not be played: {player.error}")
    timeline.crowded = player.crowded
    for one in player.played:
        if one.kind == "links" and one.due in due:
            timeline.partitions.append(zero + one.done)
            events.add_at(zero + one.done, "partition", detail=one.detail)
        if one.kind in ("links", "traffic"):
            events.add_at(zero + one.done, one.kind, due=round(one.due, 3), detail=one.detail)
