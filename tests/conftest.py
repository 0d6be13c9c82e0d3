"""The tiers of the tests. A test without a mark is marked `fast` here: `pytest -m fast`, or `make test-fast`."""

from __future__ import annotations

import os

import pytest

SLOW = frozenset({"slow", "root", "docker", "qemu", "browser", "bare"})
# One emulated network at a time, on one worker of pytest-xdist: what tests find left on this host is then their own.
NETWORK = frozenset({"root", "docker"})
# Fixtures that take seconds and serve many tests: those go to one worker, too, so that it is made once.
SHARED = frozenset({"archived", "browser", "built", "faulted", "fitted", "run_of", "scheduler", "validation", "wheel"})
# In which order groups are begun where several workers take them: the longest first, but the guest's last where .ci/run
# lets it measure meanwhile.
AHEAD = "QEMU_AHEAD" in os.environ
FIRST = ("network", "bare") if AHEAD else ("network", "guest", "bare")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not any(mark.name in SLOW for mark in item.iter_markers()):
            item.add_marker("fast")
    if hasattr(config, "workerinput"):  # of pytest-xdist
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    name = group.args[0] if group else ""
    return FIRST.index(name) if name in FIRST else len(FIRST) + (name == "guest")


def pytest_itemcollected(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    used = SHARED.intersection(getattr(item, "fixturenames", ()))
    if "xdist_group" in marks:
        return
    if marks & NETWORK:
        item.add_marker(pytest.mark.xdist_group("network"))
    elif used:
        item.add_marker(pytest.mark.xdist_group("built" if "built" in used else str(item.path)))
