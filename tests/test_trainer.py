"""Trainer processes over loopback: what a run is, without the emulated network around it."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.layout import RunDirectory, worker_ids
from harness.records.run_record import Step, read_json, read_lines, write_json
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from harness.worker.data import prepare
from harness.worker.job import Job, Summary
from netsim.traffic import Algorithm
from tests.faults.loopback import end, start

# Of this process alone: other tests of the same kind may run beside it.
ADDRESSES = tuple(f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250}.{host}" for host in (11, 12))
LAN = {
    "name": "loopback",
    "defaults": {"up": "1 Gbit", "down": "1 Gbit", "delay": "0.1 ms"},
    "sites": {"a": {}, "b": {}},
}


def spec_of(
    tmp_path: Path,
    method: str,
    options: dict[str, Any] | None = None,
    model: str = "tiny-moe",
    topology: dict[str, Any] = LAN,
    **train: Any,
) -> RunSpec:
    suite = {
        "name": "loopback",
        "model": model,
        "train": {"steps": 6, "batch": 2, "warmup": 2, "evaluate_every": 3, "evaluation_sequences": 4, **train},
        "methods": [{"method": method, "options": options or {}}],
        "topologies": [topology],
        "network": {"timeout_seconds": 30},
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return load_suite(path).cells[0]


def train(spec: RunSpec, directory: Path, cache: Path, workers: int = 1) -> list[Summary]:
    """All trainers of both sites to their end; what they reported, by rank."""
    directory.mkdir()
    everyone = worker_ids([workers, workers])
    for process in [
        start(spec, directory, cache, rank, member=member, site_workers=workers) for rank, member in everyone
    ]:
        end(process)
    return [Summary.model_validate(read_json(RunDirectory(directory).worker(*worker).summary)) for worker in everyone]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@dataclass(frozen=True)
class Finished:
    spec: RunSpec
    directory: Path
    summaries: list[Summary]


RUNS: dict[str, dict[str, Any]] = {"ddp": {}, "diloco": {"sync_every": 4}}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[[str], Finished]:
    """A finished run by a method, made once."""

    @functools.cache
    def finished(method: str) -> Finished:
        folder = tmp_path_factory.mktemp(method)
        spec = spec_of(folder, method, RUNS[method])
        return Finished(spec, folder / "run", train(spec, folder / "run", cache))

    return finished


@pytest.mark.parametrize("method", list(RUNS))
def test_a_run_moves_planned_bytes_and_explains_its_time(run_of: Callable[[str], Finished], method: str) -> None:
    """A run moves the planned bytes and its buckets explain its time."""
    run = run_of(method)
    spec, summaries = run.spec, run.summaries
    plan = ResolvedRun.of(spec).method.plan(spec.model, 2, 6, spec.seed)
    assert sum(summary.payload_bytes for summary in summaries) == plan.payload_bytes
    assert len({summary.final_loss for summary in summaries}) == 1
    for summary in summaries:
        assert summary.explained, summary.unaccounted_seconds
        assert summary.memory == ResolvedRun.of(spec).method.memory(spec.model, 2, summary.rank)
    steps = list(read_lines(run.directory / "rank-0" / "steps.jsonl", Step))
    assert [step.step for step in steps] == list(range(1, 7))
    assert [step.step for step in steps if step.evaluation_loss is not None] == [3, 6]
    assert steps[-1].tokens == 6 * 2 * spec.model.sequence


@pytest.mark.slow
@pytest.mark.xdist_group("workers of a site")  # outside of nodes, those of different runs have the same addresses
@pytest.mark.parametrize(("method", "options"), [("ddp", {}), ("diloco", {"sync_every": 4})])
def test_two_workers_of_a_site_are_one_with_twice_the_batch(
    tmp_path: Path, cache: Path, method: str, options: dict[str, Any]
) -> None:
    """Losses to rounding, WAN bytes to the byte; only the leaders send."""
    fields: dict[str, Any] = {"model": "tiny", "precision": "fp32"}
    alone = train(spec_of(tmp_path, method, options, batch=4, **fields), tmp_path / "alone", cache)
    pairs = {**LAN, "sites": {"a": {"workers": 2}, "b": {"workers": 2}}}
    spec = spec_of(tmp_path, method, options, batch=2, topology=pairs, **fields)
    found = train(spec, tmp_path / "pairs", cache, workers=2)
    assert [summary.payload_bytes for summary in found] == [alone[0].payload_bytes, 0, alone[1].payload_bytes, 0]
    assert sum(summary.payload_bytes for summary in found) == ResolvedRun.of(spec).plan.payload_bytes
    assert sum(summary.tokens for summary in found) == sum(summary.tokens for summary in alone)
    assert len({summary.final_loss for summary in found}) == 1
    assert found[0].final_loss == pytest.approx(alone[0].final_loss, rel=1e-4)
    for mine, whole in zip(
        read_lines(tmp_path / "pairs" / "rank-0" / "steps.jsonl", Step),
        read_lines(tmp_path / "alone" / "rank-0" / "steps.jsonl", Step),
        strict=True,
    ):
        assert mine.loss == pytest.approx(whole.loss, rel=1e-4)


def test_ddp_sends_its_planned_buckets_from_the_first_step(run_of: Callable[[str], Finished]) -> None:
    """Ddp sends the buckets of its plan from the first step on."""
    run = run_of("ddp")
    plan = ResolvedRun.of(run.spec).method.plan(run.spec.model, 2, 6)
    planned = {transfer.name: transfer.sent_by(0, Algorithm.DIRECT) for transfer in plan.at(2)}
    lines = (run.directory / "rank-0" / "ledger.jsonl").read_text().splitlines()
    for step in range(1, 7):
        entries = [entry for line in lines if (entry := json.loads(line))["step"] == step]
        assert {entry["transfer"]: entry["payload_bytes"] for entry in entries} == planned


def test_a_peer_that_never_comes_is_named_within_the_timeout(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path, "ddp")
    lonely = spec.model_copy(update={"network": spec.network.model_copy(update={"timeout_seconds": 2.0})})
    directory = tmp_path / "run"
    directory.mkdir()
    dataset = prepare(spec.data, 2, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    RunDirectory(directory).go.touch()
    job = Job(
        spec=lonely,
        run_id="lonely",
        rank=0,
        wan_addresses=ADDRESSES,
        control_addresses=ADDRESSES,
        directory=directory,
        shard=dataset.shards[0],
        held_out=dataset.held_out,
    )
    job.rank_directory.mkdir()
    write_json(job.rank_directory / "job.json", job)
    command = [sys.executable, "-m", "harness.worker_main", str(job.rank_directory / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "rank 1" in done.stdout
