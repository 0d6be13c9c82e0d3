"""The page of a projection: its closed form against Python's, its state, and that it is complete by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import longhaul
from harness.costmodel.projection import link_model_of
from harness.spec.scenario import Scenario, load_scenario
from netsim.errors import InputError
from reports.projection.page_loads import PageVariant, page_variants
from reports.projection.projection_page import write_page
from tests.projection.test_scenario import write
from tests.reports.browser import BROWSER_MARKS, open_browser, picture, show_as

METHODS = [
    "ddp",
    "diloco",
    {"method": "ddp", "label": "ring", "all_reduce": "ring"},
    {"method": "photon", "options": {"aggregation": "ps"}},
    "lordo",
    {"method": "fomoe", "options": {"replication": 2, "outer": "diloco"}},
    {"method": "streaming_diloco", "options": {"overlap": 3, "layers_per_fragment": 1}},
]
SWEEP = {
    "rate": ["10 Mbit", "1 Gbit"],
    "rtt": ["1 ms", "200 ms"],
    "sites": [2, 8],
    "sync_every": [10, 100],
    "rank": [8],
}
RATES, RTTS = (1e6, 3e7, 1e8, 1e9, 1e11), (0.0, 0.03, 0.4)


def page_of(folder: Path, **changes: Any) -> tuple[Scenario, list[PageVariant], Path]:
    scenario = load_scenario(write(folder, **{"methods": METHODS, "sweep": SWEEP, **changes}))
    projection = longhaul.project(scenario)
    return (
        scenario,
        list(page_variants(scenario)),
        write_page(scenario, projection.rows, projection.answers, None, folder),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def test_a_page_of_a_projection_fetches_nothing(tmp_path: Path) -> None:
    _, found, path = page_of(tmp_path, methods=["ddp", "diloco"], sweep={"sync_every": [10]})
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=.(https?:|//)", text)
    assert "default-src 'none'" in text
    assert [(one.label, one.at["sync_every"]) for one in found] == [("ddp", None), ("diloco", 50), ("diloco", 10)]


def test_a_topology_has_no_page(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, network={"topology": "transatlantic"}, methods=["ddp"]))
    projection = longhaul.project(scenario, simulate=True)
    with pytest.raises(InputError, match="closed form"):
        write_page(scenario, projection.rows, projection.answers, None, tmp_path)


def compare(browser: Any, scenario: Scenario, found: list[PageVariant], page: Path) -> None:
    browser.get(page.as_uri())
    grid_rate, grid_rtt = (a.ravel() for a in np.meshgrid(RATES, RTTS))
    script = "return DATA.variants.map((v) => arguments[0].map(([r, t]) => { const e = evaluate(v, r, t);"
    ours = browser.execute_script(
        script + "return [e.compute, e.waiting + e.communication + e.failures]; }));",
        np.stack([grid_rate, grid_rtt], axis=1).tolist(),
    )
    assert len(ours) == len(found)
    for one, there in zip(found, ours, strict=True):
        compute, communication = one.projected.seconds(grid_rate, grid_rtt, link_model_of(None, scenario.framing))
        total = np.array(there).sum(axis=1)
        np.testing.assert_allclose(total, compute + communication, rtol=1e-9, err_msg=f"{one.label} {one.at}")
        np.testing.assert_allclose(np.array(there)[:, 1], communication, rtol=1e-6, atol=1e-9 * compute[0])


class TestInABrowser:
    pytestmark = BROWSER_MARKS

    def test_its_closed_form_equals_pythons_on_a_grid(self, browser: Any, tmp_path: Path) -> None:
        compare(browser, *page_of(tmp_path))

    def test_layers_one_by_one_equal_pythons_on_a_grid(self, browser: Any, tmp_path: Path) -> None:
        methods = [
            "ddp",
            "diloco",
            {"method": "photon", "options": {"aggregation": "allreduce"}, "all_reduce": "server"},
        ]
        sweep = {"sync_every": [7]}
        compare(
            browser, *page_of(tmp_path, methods=[*methods, METHODS[-1]], exchange="layerwise", sweep=sweep, steps=300)
        )

    def test_unlike_sites_that_fail_equal_pythons_on_a_grid(self, browser: Any, tmp_path: Path) -> None:
        sites = [
            {"count": 3, "workers": 2, "inside": "1 Gbit", "worker_nic": "1 Gbit"},
            {"up": "25 Mbit", "devices": 4},
        ]
        failures = {
            "device_mtbf": "9 d",
            "restart": "1 h",
            "checkpoint": "10 s",
            "detection": "5 s",
            "source": "a test",
        }
        changes = {"sites": sites, "failures": failures, "step_jitter": "5 %", "sweep": {"sync_every": [10]}}
        compare(browser, *page_of(tmp_path, **changes))

    def test_equal_loss_and_failures_follow_the_sliders(self, browser: Any, tmp_path: Path) -> None:
        """Twice the time between failures is the scenario with twice of it; tokens to equal loss follow the sites."""
        failures = {"site_mtbf": "1 d", "restart": "1 h", "checkpoint": "10 s", "source": "test"}
        changes = {"methods": ["ddp", "diloco"], "sweep": {"sites": [8]}, "quality": {}, "failures": failures}
        _, _, page = page_of(tmp_path, **changes)
        browser.get(page.as_uri() + "#mtbf=2&sites=8")
        browser.refresh()
        ours = browser.execute_script(
            "return DATA.methods.map((m) => { const r = pointRow(m); return [r.seconds, r.equal]; });"
        )
        scenario = load_scenario(
            write(tmp_path, **{**changes, "failures": {**failures, "site_mtbf": "2 d"}, "sites": 8})
        )
        projection = longhaul.project(scenario)
        for row, worth, there in zip(projection.base, projection.answers.equal_loss or (), ours, strict=True):
            assert there[0] == pytest.approx(row.total_seconds)
            assert there[1] == pytest.approx(86_400 * (worth.days or 0.0))

    def test_the_address_keeps_what_is_set(self, browser: Any, tmp_path: Path) -> None:
        scenario, _, page = page_of(tmp_path)
        browser.get(page.as_uri() + "#rate=100000000&sync_every=10&hidden=ddp")
        browser.refresh()
        read = "return [state.rate, state.sync_every, state.hidden, pointRow(DATA.methods[1]).seconds]"
        rate, period, hidden, seconds = browser.execute_script(read)
        assert (rate, period, hidden) == (1e8, 10, ["ddp"])
        one = next(
            v for v in page_variants(scenario) if v.label == "diloco" and v.at == {**v.at, "sites": 4, "sync_every": 10}
        )
        at = np.array([1e8]), np.array([scenario.rtt])
        assert seconds == pytest.approx(float(np.add(*one.projected.seconds(*at, link_model_of(None)))[0]))
        move = "const s = document.querySelector('input[name=rate]'); s.value = 9; s.dispatchEvent(new Event('input'));"
        browser.execute_script(move)
        assert "rate=1000000000" in browser.current_url
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

    def test_it_fits_a_phone(self, browser: Any, tmp_path: Path) -> None:
        _, _, page = page_of(tmp_path)
        browser.get(page.as_uri())
        show_as(browser, 390, 800)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert len(picture(browser)) > 10_000
