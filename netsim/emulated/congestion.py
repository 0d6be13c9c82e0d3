"""Letting a network namespace use a congestion control that the host keeps for root.

A namespace may only pick what `tcp_allowed_congestion_control` lists. The list is the host's and is consulted when the
namespace's default is set, not afterwards; so root extends it for that moment and puts it back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from netsim.emulated.owner import runtime_root

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


@contextmanager
def allowed(name: str) -> Iterator[None]:
    """While inside, namespaces may choose `name`; without root nothing is changed, and the choice may be refused.

    Root in a container is not enough: the setting is read-only there.
    """
    if not os.access(_ALLOWED, os.W_OK):
        yield
        return
    runtime_root().mkdir(mode=0o711, exist_ok=True)
    with FileLock(runtime_root() / "congestion.lock"):
        before = _ALLOWED.read_text().split()
        if name in before:
            yield
            return
        try:
            _ALLOWED.write_text(" ".join([*before, name]))
            yield
        finally:
            _ALLOWED.write_text(" ".join(before))
