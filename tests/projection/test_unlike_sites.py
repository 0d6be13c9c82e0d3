"""Sites that differ from each other, steps that vary, and failures: by hand, and against the simulator."""

from __future__ import annotations

from dataclasses import replace
from math import exp, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.costmodel.planning.answer_tables import answers
from harness.costmodel.projected_row import ProjectedRow
from harness.costmodel.projection import Variant, project
from harness.costmodel.projection_rows import rows_of
from harness.costmodel.sites.failure_overhead import best_interval, rollback_stretch
from harness.costmodel.sites.stragglers import pace_of
from harness.spec.scenario import Scenario, load_scenario
from netsim.errors import InputError
from netsim.simulated.link_model import LinkModel
from tests.projection.test_scenario import write

SITES = [
    {"count": 3, "name": "fast"},
    {"name": "slow", "up": "25 Mbit", "step_time_factor": {"value": 2, "reason": "t"}},
]
METHODS: list[Any] = ["ddp", "diloco", {"method": "photon", "options": {"aggregation": "ps"}}, "streaming_diloco"]
FAST = {"rate": "10 Gbit", "rtt": "1 ms"}
FAILURES = {"site_mtbf": "10 h", "restart": "10 min", "checkpoint": "5 min", "source": "a test"}


def scenario_of(folder: Path, **changes: Any) -> Scenario:
    return load_scenario(write(folder, **{"methods": METHODS, "step_seconds": "100 ms", **changes}))


def row_of(scenario: Scenario, index: int, exact: bool = False) -> ProjectedRow:
    (row,) = rows_of(scenario, Variant(scenario.methods[index], scenario.sites), None, exact)
    return row


def test_the_narrowest_link_and_slowest_site_set_the_time(tmp_path: Path) -> None:
    """DiLoCo among four by hand: 20 rounds of 50 steps of 0.2 s; 2 x 3/4 of the model over 25 Mbit/s, no latency."""
    network = {"rate": "100 Mbit", "rtt": "0 ms", "framing": False}
    scenario = scenario_of(tmp_path, sites=SITES, network=network)
    row = row_of(scenario, 1)
    size = 4 * scenario.model.count()
    assert row.compute_seconds == pytest.approx(1000 * (3 * 0.1 + 0.2) / 4)
    assert row.waiting_seconds == pytest.approx(1000 * 0.2 - row.compute_seconds)
    assert row.communication_seconds == pytest.approx(20 * 1.5 * size * 8 / 25e6, rel=0.01)


@pytest.mark.parametrize("index", range(len(METHODS)))
def test_unlike_sites_take_what_the_simulator_says(tmp_path: Path, index: int) -> None:
    scenario = scenario_of(tmp_path, sites=SITES, steps=200)
    closed, simulated = row_of(scenario, index), row_of(scenario, index, exact=True)
    assert closed.total_seconds == pytest.approx(simulated.total_seconds, rel=0.02)
    assert closed.compute_seconds == pytest.approx(simulated.compute_seconds, rel=1e-6)


def test_sites_that_say_nothing_own_are_as_if_alike(tmp_path: Path) -> None:
    """Two groups of equal sites give the rows of one group."""
    for index in range(len(METHODS)):
        split = row_of(scenario_of(tmp_path, sites=[{"count": 1}, {"count": 3}]), index)
        alike = row_of(scenario_of(tmp_path, sites=4), index)
        assert replace(split, energy_kwh=None) == replace(alike, energy_kwh=None)
        assert split.energy_kwh == pytest.approx(alike.energy_kwh)


def test_every_answer_table_holds_for_unlike_sites(tmp_path: Path) -> None:
    prices = {"source": "test", "device_hour": 2.0}
    scenario = scenario_of(tmp_path, sites=SITES, methods=["ddp", "diloco"], deadline="1 d", prices=prices, steps=100)
    rows = [row_of(scenario, index) for index in range(2)]
    found = answers(scenario, rows, None).to_json()
    assert found.keys() >= {
        "bandwidth_for_utilisation", "break_even_period", "largest_model", "cheapest", "sensitivities",
        "near_one_site", "period_for_utilisation", "within_limits",
    }  # fmt: skip
    # Half of the fast sites' time is spent waiting for the slow one: 62.5 % is the most that any rate gives.
    assert [entry["rate_gbit"]["75 %"] for entry in found["bandwidth_for_utilisation"]] == [None, None]


def test_money_and_memory_are_those_of_each_site(tmp_path: Path) -> None:
    sites = [{"count": 2, "devices": 4}, {"device": "h100", "devices": 2}]
    scenario = scenario_of(tmp_path, sites=sites, batch=63, methods=["ddp"], prices={"source": "t", "device_hour": 3})
    row = row_of(scenario, 0)
    assert row.device_hours == pytest.approx(10 * row.total_seconds / 3600)
    assert row.cost_usd == pytest.approx(3 * row.device_hours)
    assert row.site_memory_bytes in (4 * 24e9, 2 * 80e9)


def test_work_divided_by_speed_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Three sites of 0.1 s and one of 0.2 s for a quarter each: 4 / (3 / 0.1 + 1 / 0.2) seconds together."""
    scenario = scenario_of(tmp_path, sites=SITES, division="by_speed")
    row = row_of(scenario, 1)
    assert row.step_seconds == pytest.approx(4 / 35)
    assert row.waiting_seconds == 0
    assert row.total_seconds < row_of(scenario_of(tmp_path, sites=SITES), 1).total_seconds
    simulated = row_of(scenario_of(tmp_path, sites=SITES, division="by_speed", steps=200), 1, exact=True)
    assert simulated.compute_seconds == pytest.approx(200 * 4 / 35)


def test_a_topology_has_the_answers_that_need_no_rate(tmp_path: Path) -> None:
    changes = {"network": {"topology": "transatlantic"}, "methods": ["ddp", "diloco"], "steps": 100}
    scenario = scenario_of(tmp_path, **changes, deadline="1 d", quality={})
    found = answers(scenario, [row_of(scenario, index) for index in range(2)], None).to_json()
    assert found.keys() == {"largest_model", "within_limits", "equal_loss"}


def test_the_last_of_many_normal_sites_is_the_known_one() -> None:
    """The expected largest of two standard normals is 1 / sqrt(pi), of four 1.0294 (Teichroew 1956)."""
    rounds = pace_of([2], [1.0], 0.1, 400.0)
    assert rounds.slowest == pytest.approx(1 + 0.1 / 20 / sqrt(pi), rel=1e-5)
    assert pace_of([4], [1.0], 0.1, 400.0).slowest == pytest.approx(1 + 0.1 / 20 * 1.02938, rel=1e-5)


@pytest.mark.slow
def test_jitter_costs_what_the_simulator_draws(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, step_jitter="20 %", steps=400, network=FAST)
    for index in (0, 1):
        closed, simulated = row_of(scenario, index), row_of(scenario, index, exact=True)
        assert closed.total_seconds == pytest.approx(simulated.total_seconds, rel=0.02)
    assert row_of(scenario, 1).waiting_seconds < 0.2 * row_of(scenario, 0).waiting_seconds


@pytest.mark.parametrize(("mtbf", "minutes"), [(1440, 117), (360, 57), (15, 9.1)])
def test_checkpoints_come_as_often_as_published(mtbf: float, minutes: float) -> None:
    """Daly 2006, figures 3 to 5: checkpoints of 5 minutes."""
    assert best_interval(5, mtbf) == pytest.approx(minutes, abs=0.5)
    assert rollback_stretch(best_interval(5, mtbf), 5, 10, mtbf) <= rollback_stretch(1.3 * minutes, 5, 10, mtbf)


def test_failures_cost_a_rollback_or_a_round(tmp_path: Path) -> None:
    """Four sites that fail every 10 h: DDP loses by Daly's formula, DiLoCo its round and the restart of one site."""
    network = {"rate": "100 Gbit", "rtt": "0 ms"}
    scenario = scenario_of(tmp_path, failures=FAILURES, step_seconds="60 s", network=network)
    ddp, diloco = row_of(scenario, 0), row_of(scenario, 1)
    every, all_sites = best_interval(300, 9000), 9000
    stretch = all_sites * exp(600 / all_sites) * (exp((every + 300) / all_sites) - 1) / every
    assert ddp.failure_seconds == pytest.approx((ddp.total_seconds - ddp.failure_seconds) * (stretch - 1))
    assert diloco.failure_seconds == pytest.approx(60_000 * (50 * 60 + 600) / 36_000, rel=0.001)
    assert diloco.failure_seconds < ddp.failure_seconds
    assert ddp.compute_utilisation == pytest.approx(ddp.compute_seconds / ddp.total_seconds)


def test_failures_that_allow_no_progress_are_refused(tmp_path: Path) -> None:
    failures = {**FAILURES, "site_mtbf": "1 s", "checkpoint": "1 h", "restart": "10 h"}
    with pytest.raises(InputError, match="rare enough"):
        row_of(scenario_of(tmp_path, failures=failures), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": SITES, "sweep": {"sites": [2]}}, "listed one by one"),
        ({"sites": []}, "sites"),
        ({"sites": [{"up": "1 Mbit"}] * 4, "network": {"topology": "transatlantic"}}, "which has its own"),
        ({"sites": [{"count": 4, "offload": "outer"}]}, "host_link"),
        ({"failures": {**FAILURES, "device_mtbf": "1 h"}}, "one of device_mtbf and site_mtbf"),
        ({"step_jitter": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_sites_and_failures_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario_of(tmp_path, **changes)


def test_a_rate_scales_every_site(tmp_path: Path) -> None:
    """The network's rate stands for all: twice of it is twice of each site's."""
    scenario = scenario_of(tmp_path, sites=SITES, network={"rate": "100 Mbit", "rtt": "0 ms"})
    projected = project(scenario, Variant(scenario.methods[1], 4))
    spent = projected.spent(np.array([1e8, 2e8]), np.zeros(2), LinkModel())
    assert spent.exposed[0] == pytest.approx(2 * spent.exposed[1])
