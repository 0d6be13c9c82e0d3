"""Trainer processes over loopback: what a run is, without the emulated network around it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.layout import RunDirectory
from harness.records.run_record import Step, read_json, read_lines, write_json
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from harness.worker.data import prepare
from harness.worker.job import Job, Summary
from netsim.traffic import Algorithm

ADDRESSES = ("127.0.0.11", "127.0.0.12")
LAN = {
    "name": "loopback",
    "defaults": {"up": "1 Gbit", "down": "1 Gbit", "delay": "0.1 ms"},
    "sites": {"a": {}, "b": {}},
}


def spec_of(tmp_path: Path, method: str, options: dict[str, Any] | None = None, **train: Any) -> RunSpec:
    suite = {
        "name": "loopback",
        "model": "tiny-moe",
        "train": {"steps": 6, "batch": 2, "warmup": 2, "evaluate_every": 3, "evaluation_sequences": 4, **train},
        "methods": [{"method": method, "options": options or {}}],
        "topologies": [LAN],
        "network": {"timeout_seconds": 30},
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return load_suite(path).cells[0]


def train(spec: RunSpec, directory: Path, cache: Path) -> list[Summary]:
    """Both trainers to their end; what they reported."""
    directory.mkdir()
    dataset = prepare(spec.data, 2, spec.model.sequence, spec.seed, cache, spec.model.vocabulary)
    RunDirectory(directory).go.touch()
    processes = []
    for rank in range(2):
        job = Job(
            spec=spec,
            run_id=directory.name,
            rank=rank,
            wan_addresses=ADDRESSES,
            control_addresses=ADDRESSES,
            directory=directory,
            shard=dataset.shards[rank],
            held_out=dataset.held_out,
        )
        job.rank_directory.mkdir()
        write_json(job.rank_directory / "job.json", job)
        command = [sys.executable, "-m", "harness.worker_main", str(job.rank_directory / "job.json")]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    return [Summary.model_validate(read_json(directory / f"rank-{rank}" / "summary.json")) for rank in range(2)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("method", "options"), [("ddp", {}), ("diloco", {"sync_every": 4})])
def test_a_run_moves_planned_bytes_and_explains_its_time(
    tmp_path: Path, cache: Path, method: str, options: dict[str, Any]
) -> None:
    """A run moves the planned bytes and its buckets explain its time."""
    spec = spec_of(tmp_path, method, options)
    summaries = train(spec, tmp_path / "run", cache)
    plan = ResolvedRun.of(spec).method.plan(spec.model, 2, 6, spec.seed)
    assert sum(summary.payload_bytes for summary in summaries) == plan.payload_bytes
    assert len({summary.final_loss for summary in summaries}) == 1
    for summary in summaries:
        assert abs(summary.unaccounted_seconds) < 0.05 * summary.wall_seconds
        assert summary.memory == ResolvedRun.of(spec).method.memory(spec.model, 2, summary.rank)
    steps = list(read_lines(tmp_path / "run" / "rank-0" / "steps.jsonl", Step))
    assert [step.step for step in steps] == list(range(1, 7))
    assert [step.step for step in steps if step.evaluation_loss is not None] == [3, 6]
    assert steps[-1].tokens == 6 * 2 * spec.model.sequence


def test_ddp_sends_its_planned_buckets_from_the_first_step(tmp_path: Path, cache: Path) -> None:
    """Ddp sends the buckets of its plan from the first step on."""
    spec = spec_of(tmp_path, "ddp", steps=3)
    train(spec, tmp_path / "run", cache)
    planned = {t.name: t.sent_by(0, Algorithm.DIRECT) for t in ResolvedRun.of(spec).method.plan(spec.model, 2, 3).at(2)}
    lines = (tmp_path / "run" / "rank-0" / "ledger.jsonl").read_text().splitlines()
    for step in (1, 2, 3):
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
