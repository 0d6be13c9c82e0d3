"""The page answers in the browser what Python answers, by slider, legend, filters and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from reports.answers import answers
from reports.records import collect
from reports.statistics import summarise
from reports.study import Study
from tests.reports.browser import BROWSER_MARKS, open_browser, open_report, show_as
from tests.reports.conftest import Built

pytestmark = BROWSER_MARKS

ANSWERS = """
const levels = arguments[0];
return levels.map((level) => study.places.map((place) => {
  const answer = answerAt(study, place, level);
  const speedups = place.methods.map((method) => [study.methods[method].label, speedupAt(place, method, level)]);
  return {
    headline: answer.headline,
    evidence: answer.evidence,
    times: Object.fromEntries(answer.times.map((one) => [study.methods[one.method].label, one.seconds])),
    speedups: Object.fromEntries(
      speedups.map(([label, one]) => [label, one && [one.ratio, one.low, String(one.high), one.n]])),
  };
}));
"""


@pytest.fixture(scope="module")
def browser(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        show_as(driver, 1400, 900)
        yield driver


@pytest.fixture
def page(browser: Any, built: Built) -> Any:
    """The page as it opens."""
    open_report(browser, built.out / "index.html")
    return browser


def test_the_browser_computes_what_python_computes(built: Built, page: Any) -> None:
    """Headline, times, speed-ups and their bounds are equal at every loss of a grid, on every network."""
    collection = collect([built.runs])
    level = Study(collection).levels["made-up"].loss
    grid = [*np.linspace(2.0, 5.2, 9).tolist(), level]
    for loss, shown in zip(grid, page.execute_script(ANSWERS, grid), strict=True):
        study = Study(collection, loss=loss)
        for answer, found in zip(answers(study), shown, strict=True):
            assert found["headline"] == answer.headline
            assert all(found["evidence"].count(label) for label in answer.rivals)
            for label, seconds in found["times"].items():
                runs = study.at(answer.group, answer.topology, label)
                expected = summarise(runs["seconds_to_level"].tolist())
                assert seconds == (None if expected is None else pytest.approx(expected.median, rel=1e-12))
                compared = study.against_baseline(answer.group, answer.topology, label, "seconds_to_level")
                bounds = study.speedup_range(answer.group, answer.topology, label)
                if compared is None or bounds is None:
                    assert found["speedups"][label] is None
                    continue
                ratio, low, high, n = found["speedups"][label]
                assert (ratio, low, n) == (pytest.approx(compared.ratio), pytest.approx(bounds.low), compared.n)
                assert float(high) == pytest.approx(bounds.high)


def move(page: Any, loss: float) -> None:
    script = "const s = document.querySelector('#level'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))"
    page.execute_script(script, loss)


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
    )
    return found


def test_the_slider_moves_headline_and_ranking(page: Any) -> None:
    before = texts(page, ".headline")
    move(page, 4.5)
    after = texts(page, ".headline")
    assert all("4.500" in text for text in after)
    assert texts(page, "#level-status") == [after[0]]
    assert "4.500" in texts(page, "#ranking caption")[0]
    page.execute_script("document.querySelector('#level-reset').click()")
    assert texts(page, ".headline") == before


def test_paper_shows_the_suites_own_target(page: Any) -> None:
    before = texts(page, ".headline")
    move(page, 4.5)
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert texts(page, ".headline") == before
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert "4.500" in texts(page, ".headline")[0]


def test_a_click_on_a_method_hides_it_in_every_figure(page: Any) -> None:
    page.execute_script("document.querySelector('[data-legend=\"1\"]').click()")
    states = page.execute_script(
        "return [...document.querySelectorAll('[data-series=\"1\"]')].map((e) => getComputedStyle(e).visibility)"
    )
    assert len(states) > 20
    assert set(states) == {"hidden"}
    drawn = "return page.charts.map((c) => c.shown.curves.map((x, at) => x.method === 1 && c.plot.series[at + 1].show))"
    assert not any(shown for chart in page.execute_script(drawn) for shown in chart)


def test_the_loss_chart_has_three_axes_and_logarithms(page: Any) -> None:
    choose = "const e = document.querySelector(arguments[0]); e.click(); return page.charts.at(-1).shown.x.label"
    assert "tokens" in page.execute_script(choose, "[name=loss-x][value=tokens]")
    assert "payload" in page.execute_script(choose, "[name=loss-x][value=bytes]")
    page.execute_script(choose, "[name=log-x]")
    assert page.execute_script("return page.charts.at(-1).plot.scales.x.distr") == 3
    assert page.execute_script("return Math.min(...page.charts.at(-1).shown.x.values)") > 0


def test_another_network_has_its_own_curves(page: Any) -> None:
    last = "const p = document.querySelector('#place'); p.selectedIndex = 3; p.dispatchEvent(new Event('change'))"
    page.execute_script(last)
    assert "r20-d100" in texts(page, "#ranking caption")[0]
    assert "r20-d100" in texts(page, "#figure-loss h3")[0]


def test_an_empty_chart_is_a_sentence(page: Any) -> None:
    empty = "const c = page.charts[0], spec = c.spec; c.spec = () => ({ ...spec(), curves: [], ends: [] }); c.draw();"
    box = "const b = page.charts[0].box; return [b.querySelector('.nothing').innerText, b.querySelector('.canvas')"
    words, height = page.execute_script(f"{empty} {box}.clientHeight]")
    assert "there is no speed-up to draw" in words
    assert height == 0


def test_tables_are_searched_and_filtered(page: Any) -> None:
    script = """
    const form = document.querySelector('#numbers .filters');
    const select = form.querySelector('select');
    select.value = 'diloco';
    form.querySelector('input').value = arguments[0];
    form.dispatchEvent(new Event('input'));
    return [...document.querySelectorAll('#table-methods tbody tr')].filter((row) => !row.hidden).length;
    """
    assert page.execute_script(script, "") == 4
    assert page.execute_script(script, "r20-d10 ") == 2  # d10 and d100
    assert page.execute_script(script, "nowhere") == 0


def test_arrow_keys_read_a_chart_and_plus_zooms(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    canvas = page.find_element("css selector", "[data-chart=loss] .canvas")
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert "ddp" in texts(page, "[data-chart=loss] .spoken")[0]
    span = "const s = page.charts.at(-1).plot.scales.x; return s.max - s.min"
    whole = page.execute_script(span)
    canvas.send_keys("+")
    assert page.execute_script(span) < 0.7 * whole
    canvas.send_keys("0")
    assert page.execute_script(span) == pytest.approx(whole)


def test_every_control_has_a_name(page: Any) -> None:
    nameless = """
    return [...document.querySelectorAll('button, input, select, [tabindex]')].filter((e) =>
      !e.textContent.trim() && !e.ariaLabel && !e.getAttribute('aria-label') && !(e.labels && e.labels.length)
    ).map((e) => e.outerHTML)
    """
    assert page.execute_script(nameless) == []


def test_no_click_of_these_left_an_error(browser: Any) -> None:
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
