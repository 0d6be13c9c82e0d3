"""Our collectives as a backend of torch.distributed: its name and its registration, which imports torch when called."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

BACKEND = "longhaul"


def register_backend() -> None:
    """Makes the backend known to torch.distributed; again does nothing."""
    import torch.distributed as dist  # torch may be importing us

    if dist.is_available() and BACKEND not in dist.Backend.backend_list:
        dist.Backend.register_backend(BACKEND, _create, devices=["cpu"])


def _create(store: Any, rank: int, world: int, timeout: timedelta) -> Any:
    from harness.transport.process_group import create_process_group  # half a second, for those who use it

    return create_process_group(store, rank, world, timeout)
