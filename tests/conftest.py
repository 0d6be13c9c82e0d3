"""The tiers of the tests. A test without a mark is marked `fast` here: `pytest -m fast`, or `make test-fast`."""

from __future__ import annotations

import pytest

SLOW = frozenset({"slow", "root", "docker", "qemu", "browser", "bare"})


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(mark.name in SLOW for mark in item.iter_markers()):
            item.add_marker("fast")
