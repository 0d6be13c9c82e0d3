"""How long a large page takes to build, and a browser to open it and to answer its slider."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.bench.synthetic_records import SyntheticNetwork, write_grid
from reports.build import build_report

MOST_BUILD_SECONDS, MOST_PAGE_BYTES, MOST_ANSWER_MS = 20.0, 5_000_000, 100.0
METHODS = ("ddp", "diloco", "photon", "lordo", "fomoe")
EVALUATE_EVERY = 10
_TURNS = 9
_OPENINGS = 7
_FLAGS = (
    *("--headless", "--window-size=1400,900", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    "--disable-background-networking",
)

# Milliseconds from a slider's event until the new numbers are in the page and its layout is done.
_ANSWER = """
const slider = document.querySelector("#level");
const [low, high] = [Number(slider.min), Number(slider.max)];
return Array.from({ length: arguments[0] }, (_, turn) => {
  slider.value = low + ((high - low) * (turn + 1)) / (arguments[0] + 1);
  const start = performance.now();
  slider.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  return performance.now() - start;
});
"""
# Milliseconds from the start of the navigation until what is marked `elementtiming` is on the screen.
_OPEN = """
const done = arguments[0];
const seen = (list) => done(Math.max(...list.getEntries().map((entry) => entry.renderTime)));
new PerformanceObserver(seen).observe({ type: "element", buffered: true });
"""
_EMPTY = '<!doctype html><html lang="en"><title>Empty</title><p elementtiming="first-screen">Nothing</p></html>'


@dataclass(frozen=True)
class PageSpeed:
    """open_ms: from the start of the navigation until the first screen is painted: answer, ranking, chart, live slider.

    empty_ms: the same of a page with one word. answer_ms: from a move of the slider until its numbers are laid out.
    All three are medians. build_cpu_seconds: the processor's time alone, which other programs on the host do not
    lengthen. None: no browser.
    """

    runs: int
    steps: int
    build_seconds: float
    build_cpu_seconds: float
    page_bytes: int
    open_ms: float | None
    empty_ms: float | None
    answer_ms: float | None

    @property
    def passed(self) -> bool:
        quick = all(value is None or value <= MOST_ANSWER_MS for value in (self.open_ms, self.answer_ms))
        return self.build_cpu_seconds <= MOST_BUILD_SECONDS and self.page_bytes <= MOST_PAGE_BYTES and quick


def measure_page(seeds: int = 5, steps: int = 2000, sites: int = 4) -> PageSpeed:
    """Of a suite of five methods on four networks with `seeds` seeds, made up for this."""
    networks = [
        SyntheticNetwork(f"r{rate}-d{delay}", rate * 1e6, delay / 1e3, sites)
        for rate in (20, 500)
        for delay in (10, 100)
    ]
    with tempfile.TemporaryDirectory(prefix="longhaul-page-") as temporary:
        runs, out = Path(temporary) / "runs", Path(temporary) / "report"
        kept = write_grid(
            runs, METHODS, networks, range(1, seeds + 1), steps=steps, every=EVALUATE_EVERY, speed=120 / steps
        )
        wall, cpu = time.perf_counter(), time.process_time()
        build_report([runs], out)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        page = out / "index.html"
        opened = _in_browser(page)
        return PageSpeed(len(kept), steps, wall, cpu, page.stat().st_size, *opened)


def open_milliseconds(browser: Any, page: Path) -> float:
    """Milliseconds from the start of a navigation until the first screen of a page is painted. browser: Selenium's."""
    browser.get(page.as_uri())
    return float(browser.execute_async_script(_OPEN))


def _in_browser(page: Path) -> tuple[float | None, float | None, float | None]:
    """Milliseconds to open, to open an empty page, and to answer; None without Chromium, its driver or selenium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver  # not among what Longhaul needs
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return None, None, None
    if chromium is None or driver is None:
        return None, None, None
    with tempfile.TemporaryDirectory(prefix="longhaul-browser-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser: Any = webdriver.Chrome(options=options, service=Service(executable_path=driver))
        try:
            empty = page.with_name("empty.html")
            empty.write_text(_EMPTY, encoding="utf-8")
            opened: dict[Path, list[float]] = {empty: [], page: []}
            for _ in range(_OPENINGS):
                for one, times in opened.items():
                    times.append(open_milliseconds(browser, one))
            answers = [float(turn) for turn in browser.execute_script(_ANSWER, _TURNS)]
            return median(opened[page]), median(opened[empty]), median(answers)
        finally:
            browser.quit()
