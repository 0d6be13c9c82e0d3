"""The soak on itself, short: what is killed loses nothing, leaves nothing and changes no loss."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.bench.malformed_inputs import Tried
from harness.bench.soak import MethodFaultCost, SoakResult, soak
from harness.bench.soak_report import SoakReport, load_soak, store_soak
from longhaul.commands.benches.bench_soak import LONGHAUL
from reports.pages.reliability_page import reliability_page
from tests.emulated.networks import need


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_suite_completes_with_undisturbed_losses(tmp_path: Path) -> None:
    """A suite that is killed completes with the losses of the undisturbed one."""
    need("netns")
    found = soak(LONGHAUL, tmp_path, kills=2, seconds=120, substrate="netns", dice=random.Random(3))
    assert found.corrupt == []
    assert found.leaked == []
    assert found.completions == found.same_losses > 0


def test_the_page_holds_every_figure(tmp_path: Path) -> None:
    found = SoakResult("netns", starts=9, completions=4, same_losses=4, records_read=31, seconds=600.0)
    found.kills.update(runner=2, agent=3)
    assert json.loads(json.dumps(asdict(found)))["kills"] == {"runner": 2, "agent": 3}
    row = MethodFaultCost(
        method="diloco",
        valid=True,
        why_invalid=[],
        steps=120,
        final_loss=2.5,
        wall_seconds=60.0,
        tokens_committed=1000,
        tokens_lost=24,
        bytes_repeated=2_000_000,
        bytes_caught_up=3_000_000,
        detection_seconds=[1.5],
        recovery_seconds=[0.5, 0.25],
        faults={"crash": 1},
        generations=3,
    )
    report = SoakReport(found, [row], Tried(total=50, refused=40))
    store_soak(report, tmp_path / "soak.json")
    assert load_soak(tmp_path / "soak.json") == report
    text = reliability_page(report).text
    for figure in ("5 (3 agent, 2 runner)", "24 of 1024", "31", "50 documents", "40 refused", "2.500"):
        assert figure in text, figure
    assert "<!--" not in text
