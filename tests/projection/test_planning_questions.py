"""What planners ask: tokens instead of steps, a deadline and a budget, the rate and the period for a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.costmodel.planning.answer_tables import answers
from harness.costmodel.projection import Variant, project
from harness.costmodel.projection_rows import rows_of
from harness.spec.scenario import load_scenario
from netsim.errors import InputError
from netsim.simulated.link_model import LinkModel
from tests.projection.test_scenario import write

PRICES = {"source": "test", "device_hour": 2.0}


def test_tokens_give_steps(tmp_path: Path) -> None:
    stated = load_scenario(write(tmp_path))
    per_step = stated.batch * stated.model.sequence
    by_tokens = load_scenario(write(tmp_path, steps=None, tokens=10.5 * per_step))
    by_parameters = load_scenario(write(tmp_path, steps=None, tokens_per_parameter=20))
    assert by_tokens.steps == 11
    assert (by_parameters.steps - 1) * per_step < 20 * stated.model.count() <= by_parameters.steps * per_step
    with pytest.raises(InputError, match="one of steps, tokens"):
        load_scenario(write(tmp_path, tokens=1e9))
    with pytest.raises(InputError, match="prices"):
        load_scenario(write(tmp_path, budget=100))


def test_answers_hold_at_the_values_that_they_name(tmp_path: Path) -> None:
    changes = {"methods": ["ddp", "diloco"], "deadline": "1 h", "budget": 1e6, "prices": PRICES}
    scenario = load_scenario(write(tmp_path, **changes))
    rows = [row for entry in scenario.methods for row in rows_of(scenario, Variant(entry, scenario.sites), None)]
    found = answers(scenario, rows, None)
    ddp, diloco = (project(scenario, Variant(entry, scenario.sites)) for entry in scenario.methods)
    alone = ddp.step_seconds * ddp.plan.steps
    rtt = np.array([scenario.rtt])
    for each, answer in zip((ddp, diloco), found.near_one_site or (), strict=True):
        for share, rate in answer.rate_gbit.items():
            limit = alone * (1 + float(share[1:-2]) / 100)
            if rate is not None:
                assert np.add(*each.seconds(np.array([rate * 1.001e9]), rtt, LinkModel()))[0] <= limit
                assert np.add(*each.seconds(np.array([rate * 0.97e9]), rtt, LinkModel()))[0] > limit
    (periods,) = found.period_for_utilisation or ()
    known = [period for period in periods.sync_every.values() if period is not None]
    assert known == sorted(known)
    for row, limits in zip(rows, found.within_limits or (), strict=True):
        assert limits.in_time == (row.total_seconds <= 3600)
        assert limits.in_budget == (row.cost_usd is not None and row.cost_usd <= 1e6)
        assert limits.tokens_in_time == pytest.approx(row.tokens * 3600 / row.total_seconds, abs=1)
