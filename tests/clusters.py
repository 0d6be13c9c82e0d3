"""A real Dask scheduler and workers, processes of their own on the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from netsim.library import ROOT


@dataclass
class DaskCluster:
    """workers: the process of each, in the order of the hosts that were asked for."""

    scheduler: str
    workers: list[psutil.Popen]
    scheduler_process: psutil.Popen

    def kill(self, worker: int) -> None:
        """SIGKILL to a worker and to the nanny that would start it again."""
        nanny = self.workers[worker]
        for process in [nanny, *nanny.children(recursive=True)]:
            process.kill()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def dask_cluster(folder: Path, hosts: Sequence[str]) -> Iterator[DaskCluster]:
    """A worker at each of `hosts`: loopback addresses, each of which counts as a host."""
    distributed = pytest.importorskip("distributed")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    commands = [["dask_scheduler", "--port", str(port), "--host", "127.0.0.1"]]
    commands += [["dask_worker", address, "--nthreads", "1", "--host", host] for host in hosts]
    processes = [
        psutil.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *arguments, "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name, *arguments in commands
    ]
    try:
        with distributed.Client(address, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(len(hosts), timeout=60)
        yield DaskCluster(address, processes[1:], processes[0])
    finally:
        for process in processes:
            if process.is_running():
                process.terminate()
        for process in processes:
            process.wait(30)
