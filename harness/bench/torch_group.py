"""torch.distributed over `wan0`, by gloo or by our own backend: the all-reduce that a torch program gets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch import Tensor

from harness.transport.backend_registration import BACKEND, register_backend

GLOO, OURS = "gloo", BACKEND


@contextmanager
def torch_group(
    backend: str, rank: int, world: int, interface: str, store: str, port: int, timeout: float
) -> Iterator[None]:
    """The default group, its data on `interface` and its rendezvous at `store`:`port` (rank 0's own address)."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    register_backend()
    wait = timedelta(seconds=timeout)
    dist.init_process_group(backend, init_method=f"tcp://{store}:{port}", rank=rank, world_size=world, timeout=wait)
    try:
        yield
    finally:
        dist.destroy_process_group()


def torch_all_reduce(tensor: Tensor) -> None:
    """Sum over all members, in place."""
    dist.all_reduce(tensor)
