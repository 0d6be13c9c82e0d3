"""No violation of WCAG 2 A and AA that axe-core finds: https://github.com/dequelabs/axe-core."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.reports import screenshots
from tests.reports.browser import BROWSER_MARKS, show_as

pytestmark = BROWSER_MARKS
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
CHECK = """
const done = arguments[1];
axe.run(document, { runOnly: { type: "tag", values: arguments[0] }, resultTypes: ["violations"] }).then((found) =>
  done({
    violations: found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html.slice(0, 200))]),
    passes: found.passes.map((one) => one.id),
  }),
);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A page with axe-core in it."""
    pytest.importorskip("axe_core_python")
    with screenshots.opened_page() as driver:
        driver.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        driver.set_script_timeout(120)
        yield driver


def check(browser: Any) -> tuple[list[Any], list[str]]:
    found = browser.execute_async_script(CHECK, RULES)
    return found["violations"], found["passes"]


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_axe_finds_no_violation(browser: Any, width: int, look: str) -> None:
    show_as(browser, width, 3 * screenshots.TALLEST, *screenshots.LOOKS[look])  # so that everything is laid out
    violations, passes = check(browser)
    assert violations == []
    assert {"color-contrast", "label", "button-name", "link-name", "svg-img-alt"} <= set(passes)


def test_axe_finds_a_field_without_a_name(browser: Any) -> None:
    """And so would find one that a change of the page brings."""
    browser.execute_script("document.querySelector('main').insertAdjacentHTML('beforeend', '<input id=nameless>')")
    try:
        assert [name for name, *_ in check(browser)[0]] == ["label"]
    finally:
        browser.execute_script("document.querySelector('#nameless').remove()")
