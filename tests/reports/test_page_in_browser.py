"""The page as a reader has it: in a browser, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.reports.browser import BROWSER_MARKS, open_browser, open_report, show_as
from tests.reports.conftest import Built

pytestmark = BROWSER_MARKS


@pytest.fixture(scope="module")
def browser(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        open_report(driver, built.out / "index.html")
        yield driver


def test_the_page_opens_offline_without_console_errors(browser: Any) -> None:
    """The page opens without a complaint and asks for nothing else."""
    assert browser.get_log("browser") == []
    requests = [
        entry["message"] for entry in browser.get_log("performance") if 'Network.requestWillBeSent"' in entry["message"]
    ]
    assert not [message for message in requests if '"url":"http' in message]


def test_clicking_a_heading_sorts_and_reverses(browser: Any) -> None:
    """A click on a heading sorts by number and a second one the other way."""
    read = "return [...document.querySelectorAll('#table-methods tbody tr')].map(r => r.cells[4].dataset.sort)"
    click = "document.querySelector('#table-methods thead').rows[0].cells[4].querySelector('button').click()"
    browser.execute_script(click)
    rising = [float(value) for value in browser.execute_script(read)]
    browser.execute_script(click)
    falling = [float(value) for value in browser.execute_script(read)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_missing_values_stay_last_in_either_order(browser: Any) -> None:
    read = "return [...document.querySelectorAll('#table-methods tbody tr')].map(r => r.cells[3].dataset.sort)"
    click = "document.querySelector('#table-methods thead').rows[0].cells[3].querySelector('button').click()"
    for _ in range(2):
        browser.execute_script(click)
        assert browser.execute_script(read)[-1] == ""


def test_a_number_leads_to_the_runs_that_made_it(browser: Any) -> None:
    browser.execute_script("document.querySelector('#table-methods a[data-runs]').click()")
    marked = browser.execute_script("return document.querySelectorAll('#table-runs tr.shown').length")
    assert marked in (1, 3)
    assert "#run-" in browser.current_url


def test_a_phone_scrolls_tables_and_not_the_page(browser: Any) -> None:
    show_as(browser, 360, 740)
    widest = browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= 360


def test_figures_follow_the_readers_colours(browser: Any) -> None:
    colour = "return getComputedStyle(document.querySelector('.drawing text')).fill"
    show_as(browser, 360, 740, "light")
    light = browser.execute_script(colour)
    show_as(browser, 360, 740, "dark")
    assert browser.execute_script(colour) != light


def test_a_run_opens_from_the_page(browser: Any) -> None:
    link = browser.execute_script("return document.querySelector('#table-runs tbody a').href")
    browser.get(link)
    assert "result.json" in browser.page_source
