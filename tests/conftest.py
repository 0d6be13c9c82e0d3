"""The tiers of the tests: those without a mark are the fast tier, and run before all others."""

from __future__ import annotations

import pytest

MARKS = frozenset({"slow", "root", "docker", "qemu", "browser", "bare"})


def is_fast(item: pytest.Item) -> bool:
    return not any(mark.name in MARKS for mark in item.iter_markers())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="the fast tier only: no root, containers, emulation, browser")
    parser.addoption("--gate", action="store_true", help="stop after the fast tier if one of its tests has failed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    fast = [item for item in items if is_fast(item)]
    others = [item for item in items if not is_fast(item)]
    if config.getoption("--fast"):
        config.hook.pytest_deselected(items=others)
        others = []
    items[:] = fast + others


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Ends the session instead of running `item` if the gate is shut; pytest reads `shouldfail` after each test."""
    if item.config.getoption("--gate") and item.session.testsfailed and not is_fast(item):
        item.session.shouldfail = "the fast tier has failures: the other tests were not run"
        return True
    return None
