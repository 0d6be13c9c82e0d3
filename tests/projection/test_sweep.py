"""Sweeps on processes and on clusters give what one process gives."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.cluster.sweep import sweep
from harness.costmodel.projection import variants
from harness.costmodel.projection_rows import rows_of
from harness.spec.scenario import load_scenario
from netsim.errors import HostError, InputError
from tests.clusters import dask_cluster, free_port
from tests.projection.test_scenario import write


def square(number: int) -> int:
    return number * number


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), ["127.0.0.1", "127.0.0.1"]) as cluster:
        yield cluster.scheduler


def test_a_sweep_keeps_the_order_of_its_tasks() -> None:
    done: list[int] = []
    assert sweep(square, [3, 1, 2], progress=lambda: done.append(1)) == [9, 1, 4]
    assert len(done) == 3
    assert sweep(square, list(range(20)), jobs=2) == [n * n for n in range(20)]


@pytest.mark.slow
def test_a_dask_cluster_projects_the_same_rows(scheduler: str, tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, sweep={"sync_every": [10, 20]}))
    tasks = list(variants(scenario))
    here = [rows_of(scenario, task, None) for task in tasks]
    there = sweep(partial(rows_of, scenario, calibration=None), tasks, "dask", scheduler)
    assert there == here


@pytest.mark.slow
def test_a_dask_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError, match=re.escape("tcp://127.0.0.1:1")):
        sweep(square, [1], "dask", "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="address of a Dask scheduler"):
        sweep(square, [1], "dask")


@pytest.fixture
def ray_cluster() -> Iterator[str]:
    """A real Ray node on the loopback interface."""
    pytest.importorskip("ray", reason="the optional ray is not installed")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    local = ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--include-dashboard", "false"]
    port = free_port()
    start = [*command, "start", "--head", "--block", "--port", str(port), "--disable-usage-stats", *local]
    node = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        node.terminate()  # and with it what it started, but no other cluster's processes
        node.wait(60)


def test_a_ray_cluster_projects_the_same_rows(ray_cluster: str, tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, sweep={"sync_every": [10, 20]}))
    tasks = list(variants(scenario))
    here = [rows_of(scenario, task, None) for task in tasks]
    assert sweep(partial(rows_of, scenario, calibration=None), tasks, "ray", ray_cluster) == here


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed here")
def test_ray_is_named_when_it_is_missing() -> None:
    with pytest.raises(HostError, match=re.escape("longhaul-bench[ray]")):
        sweep(square, [1], "ray")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputError, match="local, dask, ray"):
        sweep(square, [1], "abacus")
