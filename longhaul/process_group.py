"""`init_process_group("longhaul")`: our collectives for any torch.distributed program.

Importing this module registers the backend. Where Longhaul is installed, torch does so by itself (entry point
`torch.backends`; TORCH_DEVICE_BACKEND_AUTOLOAD=0 prevents it).
"""

from __future__ import annotations

from harness.transport.backend_registration import register_backend as register

__all__ = ["register"]

register()
