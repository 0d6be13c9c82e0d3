"""What the page looks like, and that everybody can read and use it: WCAG 2.1 AA, as far as a browser can tell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from tests.reports import screenshots
from tests.reports.browser import BROWSER_MARKS, show_as

pytestmark = BROWSER_MARKS
MOST_DIFFERENT = 0.03  # of the blocks of a picture; other fonts move lines, another layout moves everything

# Texts whose contrast with what is behind them is below 4.5 (3 for large ones): contrast, colours and words.
LOW_CONTRAST = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (colour) => (colour.match(/[0-9.]+/g) ?? []).map(Number);
const opaque = (colour) => colour.startsWith("rgb") && (numbers(colour)[3] ?? 1) > 0;
function behind(element) {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (opaque(colour)) return numbers(colour);
  }
  return [255, 255, 255];
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
  const style = getComputedStyle(element);
  if (!words || !element.getClientRects().length || element.matches(":disabled, .spoken, script, style")) continue;
  const paint = element instanceof SVGElement ? style.fill : style.color;
  if (!opaque(paint)) continue;
  const [a, b] = [light(numbers(paint)), light(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) found.push([contrast, paint, behind(element), words]);
}
return found;
"""
NAMED = {"button", "checkbox", "combobox", "image", "img", "link", "radio", "region", "searchbox", "slider"}
NAMED |= {"spinbutton", "table", "textbox", "navigation", "radiogroup"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with screenshots.opened_page() as driver:
        yield driver


@pytest.mark.parametrize(("width", "look"), screenshots.SHOTS)
def test_the_page_looks_as_in_its_reference(browser: Any, width: int, look: str) -> None:
    """Renewed by `python -m tests.reports.screenshots`, after a look at each."""
    with Image.open(screenshots.reference(width, look)) as expected:
        assert screenshots.difference(screenshots.take(browser, width, look), expected) <= MOST_DIFFERENT


def test_a_changed_picture_is_told_from_its_reference() -> None:
    """A tenth of the page in another colour is, a shift by one pixel is not."""
    with Image.open(screenshots.reference(1400, "light")) as stored:
        expected = stored.convert("RGB")
    shifted = expected.transform(expected.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0))
    assert screenshots.difference(shifted, expected) <= MOST_DIFFERENT
    changed = expected.copy()
    changed.paste((40, 80, 200), (0, 0, expected.width, expected.height // 10))
    assert screenshots.difference(changed, expected) > MOST_DIFFERENT


@pytest.mark.parametrize("look", ["light", "dark", "print"])
def test_every_text_stands_out_from_what_is_behind_it(browser: Any, look: str) -> None:
    show_as(browser, 1400, 900, *screenshots.LOOKS[look])
    assert browser.execute_script(LOW_CONTRAST) == []


@pytest.mark.parametrize(("width", "look"), screenshots.SHOTS)
def test_nothing_is_wider_than_the_page(browser: Any, width: int, look: str) -> None:
    show_as(browser, width, 3 * screenshots.TALLEST, *screenshots.LOOKS[look])  # so that everything is laid out
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_everything_with_a_role_has_a_name(browser: Any) -> None:
    """In the browser's own accessibility tree: what a screen reader says."""
    show_as(browser, 1400, 900)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] in NAMED]
    assert {"slider", "combobox", "table", "link"} <= {node["role"]["value"] for node in shown}
    assert [node for node in shown if not node.get("name", {}).get("value", "").strip()] == []


def test_headings_descend_one_level_at_a_time(browser: Any) -> None:
    show_as(browser, 1400, 900)
    read = "return [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((h) => Number(h.tagName[1]))"
    levels = browser.execute_script(read)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(after - before for before, after in pairwise(levels)) <= 1


def test_tables_have_captions_and_headings_scopes(browser: Any) -> None:
    wrong = """
    return [...document.querySelectorAll("main table")].filter((table) => !table.caption?.textContent.trim() ||
      [...table.querySelectorAll("th")].some((head) => !["row", "col"].includes(head.scope))).map((t) => t.id)
    """
    assert browser.execute_script(wrong) == []


def test_tab_follows_the_order_of_reading(browser: Any) -> None:
    """No element jumps the queue, and the order of the document is that of the screen in each section."""
    show_as(browser, 1400, 900)
    assert browser.execute_script("return [...document.querySelectorAll('[tabindex]')].every((e) => e.tabIndex <= 0)")
    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    places = []
    for _ in range(24):
        press = {"type": "keyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", press)
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {**press, "type": "keyUp"})
        places.append(
            browser.execute_script("return [...document.querySelectorAll('*')].indexOf(document.activeElement)")
        )
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    shown = "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
    style, width = browser.execute_script(shown)
    assert style != "none"
    assert width >= 2
