"""Deadlines, cheapest methods, equal loss and how answers depend on their inputs."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.costmodel.planning.answer_tables import Answers, answers
from harness.costmodel.planning.equal_loss import EqualLoss, equal_losses, loss_of, tokens_for
from harness.costmodel.planning.measured_penalty import token_ratio
from harness.costmodel.projected_row import ProjectedRow
from harness.costmodel.projection import Variant, project
from harness.costmodel.projection_rows import rows_of
from harness.spec.scenario import Scenario, load_scenario
from longhaul.commands.project import project as command
from netsim.errors import InputError
from netsim.simulated.link_model import LinkModel
from tests.projection.test_scenario import write
from tests.reports.made_up import write_grid

ONE_STEP = {"steps": None, "tokens_per_parameter": 20}


def planned(folder: Path, **changes: Any) -> tuple[Scenario, Answers]:
    scenario = load_scenario(write(folder, **{"model": "tiny", "methods": ["ddp", "diloco"], **changes}))
    rows = [row for entry in scenario.methods for row in rows_of(scenario, Variant(entry, scenario.sites), None)]
    return scenario, answers(scenario, rows, None)


def test_the_largest_model_ends_in_time_and_no_larger_one(tmp_path: Path) -> None:
    scenario, found = planned(tmp_path, deadline="2 h", **ONE_STEP)
    for entry, answer in zip(scenario.methods, found.largest_in_time or (), strict=True):
        assert answer.limited_by == "time"
        assert answer.days is not None
        assert answer.days <= 2 / 24
        assert answer.tokens >= 20 * answer.parameters
        deeper = type(scenario.model).model_validate({**scenario.model.model_dump(), "layers": answer.layers + 1})
        steps = -(-20 * deeper.count() // (scenario.batch * deeper.sequence))
        larger = project(scenario, Variant(entry.model_copy(update={"model": deeper}), 4), steps)
        assert float(larger.spent(np.array(1e8), np.array(0.04), LinkModel()).total) > 7200
        # Bytes and tokens both grow with the parameters: time with their square, so that a root of time is a model.
        assert answer.elasticity == pytest.approx(0.5, abs=0.1)


def test_memory_limits_what_time_would_allow(tmp_path: Path) -> None:
    device = {"like": "rtx-4090", "memory": "1 GB"}
    _, found = planned(tmp_path, deadline="3000 d", site={"device": device}, methods=["diloco"])
    (answer,) = found.largest_in_time or ()
    (largest,) = found.largest_model
    assert (answer.limited_by, answer.layers) == ("memory", largest.layers)


def test_the_cheapest_is_named_with_its_runner_up(tmp_path: Path) -> None:
    scenario, found = planned(tmp_path, prices={"source": "a test", "device_hour": 2})
    (best,) = found.cheapest or ()
    seconds = {e.label: rows_of(scenario, Variant(e, 4), None)[0].total_seconds for e in scenario.methods}
    assert (best.fastest, best.next_fastest, best.next_least_money) == ("diloco", "ddp", "ddp")
    assert best.slower_percent == pytest.approx(100 * (seconds["ddp"] / seconds["diloco"] - 1))
    assert best.dearer_percent == pytest.approx(best.slower_percent)


def test_answers_move_as_their_sensitivities_say(tmp_path: Path) -> None:
    """A step twice as fast asks for twice the rate where latency is nothing, and for twice the period."""
    _, found = planned(tmp_path, network={"rate": "1 Mbit", "rtt": "0 ms"}, targets=[0.9], step_seconds="1 s")
    at = {(s.label, s.answer, s.input): s.elasticity for s in found.answer_sensitivities or ()}
    assert at["diloco", "rate for 90 % utilisation (Gbit/s)", "achieved FLOP/s"] == pytest.approx(1, abs=0.01)
    assert at["diloco", "period for 90 % utilisation (steps)", "achieved FLOP/s"] == pytest.approx(1, abs=0.05)
    assert at["diloco", "period for 90 % utilisation (steps)", "rate"] == pytest.approx(-1, abs=0.05)
    assert at["diloco", "rate for one site +5 % (Gbit/s)", "rtt"] == 0


def test_the_law_gives_the_papers_losses() -> None:
    """Scaling Laws for DiLoCo: held-out losses at 550M and 1.3B, for data parallelism and 2, 4, 8 replicas."""
    for size, losses in ((550e6, (2.653, 2.657, 2.673, 2.698)), (1.3e9, (2.460, 2.464, 2.472, 2.493))):
        for replicas, loss in zip((None, 2, 4, 8), losses, strict=True):
            assert loss_of(size, replicas) == pytest.approx(loss, rel=0.01)
    assert loss_of(1e9, 4) < loss_of(1e9, 5) < loss_of(1e9, 8) < loss_of(1e9, 9)


def test_tokens_make_up_for_a_loss_or_never_do() -> None:
    """By hand: 1e9 parameters, 2e10 tokens: 1.69 + 0.3540 + 0.5344; 1 % more needs B / D^0.28 = 0.5089."""
    assert tokens_for(0.01, 1e9, 2e10) == pytest.approx((0.53435 / 0.50882) ** (1 / 0.28), rel=1e-3)
    assert tokens_for(0.0, 1e9, 2e10) == pytest.approx(1)
    assert tokens_for(0.5, 1e9, 2e10) is None


def losses_of(folder: Path, **changes: Any) -> tuple[list[ProjectedRow], list[EqualLoss]]:
    scenario = load_scenario(write(folder, **{"model": "tiny", "methods": ["ddp", "diloco"], **changes}))
    rows = [row for entry in scenario.methods for row in rows_of(scenario, Variant(entry, scenario.sites), None)]
    return rows, list(equal_losses(scenario, rows))


def test_equal_loss_takes_tokens_times_the_time(tmp_path: Path) -> None:
    own = {"diloco": {"tokens": 1.5, "source": "a test"}}
    rows, (ddp, diloco) = losses_of(tmp_path, quality={"own": own})
    assert ddp.days == pytest.approx(rows[0].total_seconds / 86_400)
    assert diloco.days == pytest.approx(1.5 * rows[1].total_seconds / 86_400)


def test_a_law_says_where_it_does_not_hold_and_can_be_off(tmp_path: Path) -> None:
    _, by_law = losses_of(tmp_path, quality={})
    assert by_law[1].outside == "parameters, period, tokens per parameter"
    _, off = losses_of(tmp_path, quality={"law": "none"})
    assert [entry.days is None for entry in off] == [False, True]
    assert load_scenario(write(tmp_path)).quality is None
    with pytest.raises(InputError, match=r"quality\.own"):
        losses_of(tmp_path, quality={"own": {"dilco": {"tokens": 2, "source": "t"}}})


def test_curves_say_what_tokens_were_worth() -> None:
    """Losses of 3 - 0.1 ln(tokens): one and a half times as many tokens shift the curve."""
    tokens = np.geomspace(1e3, 1e6, 30)
    baseline = tokens, 3 - 0.1 * np.log(tokens)
    assert token_ratio((1.5 * tokens, baseline[1]), baseline) == pytest.approx(1.5)
    assert token_ratio((tokens, baseline[1] + 0.1 * log(1.2)), baseline) == pytest.approx(1.2, rel=1e-3)
    assert token_ratio((tokens, baseline[1] + 9), baseline) is None


def test_a_suites_runs_say_what_tokens_were_worth(tmp_path: Path) -> None:
    """Made-up runs, in which DiLoCo learns half as fast; a folder without both methods is refused."""
    write_grid(tmp_path / "runs", ["ddp"], seeds=(1, 2))
    write_grid(tmp_path / "runs", ["diloco"], seeds=(1, 2, 3), speed=0.5)
    _, (_, diloco) = losses_of(tmp_path, quality={"own": {"diloco": {"runs": "runs", "source": "a test"}}})
    assert diloco.token_factor == pytest.approx(2, rel=0.05)
    write_grid(tmp_path / "none", ["ddp"], seeds=(1,))
    with pytest.raises(InputError, match="valid runs of diloco and ddp"):
        losses_of(tmp_path, quality={"own": {"diloco": {"runs": "none", "source": "a test"}}})


@pytest.mark.slow
def test_values_of_the_command_line_replace_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path, methods=["ddp", "diloco"]))
    command(path, set_=["deadline=30 d", "network.rate=1 Mbit", "tokens=1e7"], simulate=False)
    printed = capsys.readouterr().out
    assert "largest model within the deadline" in printed
    for wrong in ("deadline", "sites.x=1"):
        with pytest.raises(InputError):
            command(path, set_=[wrong])
