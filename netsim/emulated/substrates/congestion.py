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

from netsim.emulated.owner import own_runtime_root, runtime_root

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


@contextmanager
def allowed(name: str) -> Iterator[None]:
    """While inside, namespaces may choose `name`; without root nothing is changed, and the choice may be refused.

    Root in a container is not enough: the setting is read-only there.
    """
    if not os.access(_ALLOWED, os.W_OK):
        yield
        return
    with _alone():
        _put_back()
        before = _ALLOWED.read_text().split()
        if name in before:
            yield
            return
        try:
            _before().write_text(" ".join(before))
            _ALLOWED.write_text(" ".join([*before, name]))
            yield
        finally:
            _put_back()


def restore() -> bool:
    """Puts back the list that a process killed inside `allowed` left extended; whether there was one."""
    if not _before().exists() or not os.access(_ALLOWED, os.W_OK):
        return False
    with _alone():
        return _put_back()


def _before() -> Path:
    """The list as it was, kept while it is another."""
    return runtime_root() / "congestion.before"


def _alone() -> FileLock:
    """The kernel releases it when its holder ends, however it ends."""
    return FileLock(own_runtime_root() / "congestion.lock")


def _put_back() -> bool:
    if not (kept := _before()).exists():
        return False
    _ALLOWED.write_text(kept.read_text())
    kept.unlink()
    return True
