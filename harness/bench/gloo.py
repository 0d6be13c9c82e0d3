"""Plain gloo over `wan0`: the all-reduce that a torch program gets without us, for comparison."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch import Tensor


@contextmanager
def gloo_group(rank: int, world: int, interface: str, store: str, port: int, timeout: float) -> Iterator[None]:
    """torch.distributed with gloo's data on `interface` and its rendezvous at `store`:`port` (rank 0's own address)."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    wait = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=f"tcp://{store}:{port}", rank=rank, world_size=world, timeout=wait)
    try:
        yield
    finally:
        dist.destroy_process_group()


def gloo_all_reduce(tensor: Tensor) -> None:
    """Sum over all members, in place."""
    dist.all_reduce(tensor)
