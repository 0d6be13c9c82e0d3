"""Trainer processes over loopback, without an emulated network around them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from harness.data import prepare
from harness.job import GO, Job, Summary
from harness.records import read_json, write_json
from harness.suite import RunSpec, load_suite


def spec_of(folder: Path, method: str, options: dict[str, Any] | None = None, sites: int = 2, **fields: Any) -> RunSpec:
    """A cell of `sites` sites on a fast network; `train` and `network` in `fields` replace single entries."""
    train = {"steps": 8, "batch": 2, "warmup": 2, "evaluate_every": 4, "evaluation_batches": 2}
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
    (directory / GO).touch()
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
    command = [sys.executable, "-m", "harness.trainer", str(job.rank_directory / "job.json")]
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
