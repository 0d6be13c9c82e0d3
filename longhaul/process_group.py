"""`init_process_group("longhaul")`: our collectives for any torch.distributed program.

Importing this module registers the backend. Where Longhaul is installed, torch does so by itself (entry point
`torch.backends`; TORCH_DEVICE_BACKEND_AUTOLOAD=0 prevents it).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

NAME = "longhaul"


def register() -> None:
    """Makes the backend known to torch.distributed; again does nothing."""
    import torch.distributed as dist  # torch may be importing us

    if dist.is_available() and NAME not in dist.Backend.backend_list:
        dist.Backend.register_backend(NAME, _create, devices=["cpu"])


def _create(store: Any, rank: int, world: int, timeout: timedelta) -> Any:
    from harness.transport.process_group import create_process_group  # half a second, for those who use it

    return create_process_group(store, rank, world, timeout)


register()
