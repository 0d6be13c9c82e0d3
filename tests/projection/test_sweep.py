"""Sweeps on processes and on clusters give what one process gives."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.projection import rows_of, variants
from harness.projection_sweep import sweep
from harness.scenario import load_scenario
from netsim.errors import HostError, InputError
from tests.projection.test_scenario import write


def square(number: int) -> int:
    return number * number


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Dask scheduler and two workers, processes of their own on the loopback interface."""
    distributed = pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    commands = [["dask_scheduler", "--port", str(port), *local]]
    commands += [["dask_worker", address, "--nthreads", "1", *local, "--name", f"worker-{n}"] for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        for command in commands
    ]
    try:
        with distributed.Client(address, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def test_a_sweep_keeps_the_order_of_its_tasks() -> None:
    done: list[int] = []
    assert sweep(square, [3, 1, 2], progress=lambda: done.append(1)) == [9, 1, 4]
    assert len(done) == 3
    assert sweep(square, list(range(20)), jobs=2) == [n * n for n in range(20)]


def test_a_dask_cluster_projects_the_same_rows(scheduler: str, tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, sweep={"sync_every": [10, 20]}))
    tasks = list(variants(scenario))
    here = [rows_of(scenario, task, None) for task in tasks]
    there = sweep(partial(rows_of, scenario, calibration=None), tasks, "dask", scheduler)
    assert there == here


def test_a_dask_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError, match=re.escape("tcp://127.0.0.1:1")):
        sweep(square, [1], "dask", "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="address of a Dask scheduler"):
        sweep(square, [1], "dask")


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed here")
def test_ray_is_named_when_it_is_missing() -> None:
    with pytest.raises(HostError, match=re.escape("longhaul[ray]")):
        sweep(square, [1], "ray")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputError, match="local, dask, ray"):
        sweep(square, [1], "abacus")
