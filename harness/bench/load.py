"""Every core busy training, for benchmarks that must also hold then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from netsim.library import ROOT


@contextmanager
def busy_cores() -> Iterator[None]:
    """One process per core that trains without pause, at the priority of the caller."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness.bench.load"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train_for_ever() -> None:
    """Forward, backward and update of a small network, again and again; ends with the process that started it."""
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(64, 256)
    parent = os.getppid()
    while os.getppid() == parent:
        optimizer.zero_grad()
        (model(batch) - batch).square().mean().backward()
        optimizer.step()


if __name__ == "__main__":
    train_for_ever()
