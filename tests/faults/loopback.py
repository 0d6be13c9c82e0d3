"""Trainer processes over loopback, without an emulated network around them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from harness.records.code_hash import code_hash
from harness.records.layout import RunDirectory
from harness.records.logs import Events, read_entries
from harness.records.run_record import Result, read_json, write_json
from harness.run.fault_records import costs_of
from harness.run.own_code import OwnCode
from harness.run.result import Observed, assemble_result
from harness.run.worker_group import WorkerGroup, started
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from harness.worker.data import prepare
from harness.worker.job import Job, Summary
from netsim.emulated.node.processes import is_stopped


def spec_of(folder: Path, method: str, options: dict[str, Any] | None = None, sites: int = 2, **fields: Any) -> RunSpec:
    """A cell of `sites` sites on a fast network; `train` and `network` in `fields` replace single entries."""
    train = {"steps": 8, "batch": 2, "warmup": 2, "evaluate_every": 4, "evaluation_sequences": 4}
    suite = {
        "name": "loopback",
        "model": "tiny-moe",
        "methods": [{"method": method, "options": options or {}}],
        "topologies": [
            {
                "name": "loopback",
                "defaults": {"up": "1 Gbit", "down": "1 Gbit", "delay": "0.1 ms"},
                "sites": {name: {} for name in "abcdefgh"[:sites]},
            }
        ],
        **fields,
        "train": {**train, **fields.get("train", {})},
        "network": {"timeout_seconds": 30, **fields.get("network", {})},
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return load_suite(path).cells[0]


def addresses(folder: Path, sites: int) -> tuple[str, ...]:
    """Loopback addresses that no other test's workers use at the same time."""
    third = hash(str(folder)) % 250 + 2
    return tuple(f"127.{os.getpid() % 250 + 1}.{third}.{rank + 1}" for rank in range(sites))


def start(spec: RunSpec, directory: Path, cache: Path, rank: int, **fields: Any) -> subprocess.Popen[str]:
    """The trainer of `rank`, told to go at once."""
    sites = len(spec.topology["sites"])
    dataset = prepare(spec.data, sites, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    directory.mkdir(exist_ok=True)
    RunDirectory(directory).go.touch()
    own = addresses(directory, sites)
    job = Job(
        spec=spec,
        run_id="loopback",
        rank=rank,
        wan_addresses=own,
        control_addresses=own,
        directory=directory,
        shard=dataset.shards[rank],
        held_out=dataset.held_out,
        **fields,
    )
    job.rank_directory.mkdir(exist_ok=True)
    write_json(job.rank_directory / "job.json", job)
    command = [sys.executable, "-m", "harness.worker_main", str(job.rank_directory / "job.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def end(process: subprocess.Popen[str], timeout: float = 150) -> str:
    """What it said, when it has ended well."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


def train(spec: RunSpec, directory: Path, cache: Path, **fields: Any) -> list[Summary]:
    """All trainers to their end; what they reported."""
    sites = len(spec.topology["sites"])
    for process in [start(spec, directory, cache, rank, **fields) for rank in range(sites)]:
        end(process)
    return [Summary.model_validate(read_json(directory / f"rank-{rank}" / "summary.json")) for rank in range(sites)]


class LocalProcess:
    """A program, as a node's agent gives it to the runner."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self.stopped = process, False

    def poll(self) -> int | None:
        status = self._process.poll()
        self.stopped = status is None and is_stopped(self._process.pid)
        return status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class LocalNode:
    """A site whose links are loopback."""

    def __init__(self, site: str, address: str) -> None:
        self.site, self.wan_address, self.mgmt_address, self.user = site, address, address, None
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, argv: list[str], env: dict[str, str], log: Path) -> LocalProcess:
        with log.open("ab") as output:
            process = subprocess.Popen(argv, env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT)
        self.started.append(process)
        return LocalProcess(process)


class LocalNetwork:
    """Loopback in the place of an emulated network."""

    def __init__(self, spec: RunSpec, directory: Path) -> None:
        self.topology = ResolvedRun.of(spec).topology
        places = addresses(directory, len(self.topology.sites))
        self.nodes = [LocalNode(site.name, place) for site, place in zip(self.topology.sites, places, strict=True)]

    def verify(self) -> None:
        """Nothing is shaped."""

    verify_when_due = verify


def run_through(
    spec: RunSpec, directory: Path, cache: Path, disturb: Callable[[LocalNetwork], None] = lambda network: None
) -> tuple[Result, list[dict[str, Any]]]:
    """The whole of a run with declared faults but for its network; result and events."""
    directory.mkdir()
    run = ResolvedRun.of(spec)
    network: Any = LocalNetwork(spec, directory)
    sites = len(network.nodes)
    dataset = prepare(spec.data, sites, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    with (
        closing(Events(directory / "events.jsonl")) as events,
        started(
            WorkerGroup(
                run, "loopback", code_hash(spec.method), directory, network, dataset, events, OwnCode.of(spec), {}
            ),
            0,
        ) as trainers,
    ):
        trainers.wait_until_ready()
        RunDirectory(directory).go.touch()
        disturb(network)
        trainers.wait()
    left = sorted(set(range(sites)) - trainers.absent)
    summaries = [Summary.model_validate(read_json(directory / f"rank-{rank}" / "summary.json")) for rank in left]
    costs = costs_of(RunDirectory(directory), run, summaries, frozenset(trainers.absent))
    observed = Observed("loopback", "none", "none", (0,) * sites, (), 0.0)
    return assemble_result(run, summaries, observed, costs), read_entries(directory / "events.jsonl")
