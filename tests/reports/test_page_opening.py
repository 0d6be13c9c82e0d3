"""The first screen stands before the rest of the page is drawn, and the rest is there when it is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reports.interactive.page_speed import open_milliseconds
from tests.reports.browser import BROWSER_MARKS, open_browser, open_report, show_as
from tests.reports.conftest import Built

pytestmark = BROWSER_MARKS
UNDRAWN = "return [...document.querySelectorAll('.drawing')].filter((d) => !d.querySelector('svg')).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser: Any, built: Built) -> Any:
    show_as(browser, 1400, 900)
    open_report(browser, built.out / "index.html")
    return browser


def test_the_first_screen_stands_before_the_page_is_read(browser: Any, built: Built) -> None:
    """The slider answers while nothing behind its script has been read yet."""
    cut = built.out / "cut.html"
    cut.write_text(built.page[: built.page.index('<section id="numbers">')] + "</main></body></html>", encoding="utf-8")
    browser.get(cut.as_uri())
    moved = """
    const slider = document.querySelector("#level");
    slider.value = 4.5;
    slider.dispatchEvent(new Event("input"));
    return [document.querySelector("#ranking caption").textContent, page.charts.length];
    """
    caption, charts = browser.execute_script(moved)
    assert "4.500" in caption
    assert charts == 1
    assert open_milliseconds(browser, cut) > 0


def test_a_screen_draws_all_but_what_charts_replace(page: Any) -> None:
    kept = "[...document.querySelectorAll('.drawing')].filter((d) => !d.querySelector('svg'))"
    assert page.execute_script(f"return {kept}.every((d) => d.matches('.replaced, .covered *'))")
    assert page.execute_script("return document.querySelectorAll('.drawing svg').length") >= 10


def test_paper_has_every_figure(page: Any) -> None:
    assert page.execute_script(UNDRAWN) > 0
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(UNDRAWN) == 0


def test_print_media_has_every_figure(page: Any) -> None:
    show_as(page, 700, 900, media="print")
    assert page.execute_script(UNDRAWN) == 0


def test_without_scripts_every_figure_is_an_svg(browser: Any, built: Built) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((built.out / "index.html").as_uri())
        root = browser.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        found = {}
        for selector in (".drawing", ".drawing svg"):
            asked = {"nodeId": root, "selector": selector}
            found[selector] = len(browser.execute_cdp_cmd("DOM.querySelectorAll", asked)["nodeIds"])
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert found[".drawing svg"] == found[".drawing"] >= 10


def test_a_method_hidden_early_is_hidden_in_later_figures(page: Any, built: Built) -> None:
    page.get((built.out / "index.html").as_uri())
    hide = "document.querySelector('[data-legend=\"1\"]').click(); everythingDrawn.then(arguments[0])"
    page.execute_async_script(hide)
    states = page.execute_script(
        "return [...document.querySelectorAll('[data-series=\"1\"]')].map((mark) => mark.style.visibility)"
    )
    assert len(states) > 20
    assert set(states) == {"hidden"}


@pytest.mark.parametrize("section", ["memory", "networks", "runs"])
def test_a_link_to_a_section_ends_at_its_heading(page: Any, section: str) -> None:
    """Although the sections above it have not been laid out."""
    page.execute_script(f"document.querySelector('nav a[href=\"#{section}\"]').click()")
    show_as(page, 1400, 900)  # waits for frames
    top = f"return document.querySelector('#{section}').getBoundingClientRect().top"
    end = "return scrollY + innerHeight >= document.documentElement.scrollHeight - 2"
    assert 0 <= page.execute_script(top) < 100 or page.execute_script(end)


def test_the_loss_chart_offers_the_files_it_replaces(page: Any) -> None:
    links = "return [...document.querySelectorAll('#figure-loss .files a')].map((link) => link.getAttribute('href'))"
    found = page.execute_script(links)
    assert len(found) == 4 * page.execute_script("return document.querySelectorAll('.covered').length") > 0
    assert "figures/loss-bytes.pdf" in found
