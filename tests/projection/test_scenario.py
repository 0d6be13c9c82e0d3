"""Scenario files: what they may say, and one clear error for what they may not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.spec.scenario import load_scenario
from netsim.errors import InputError

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
SMALL: dict[str, Any] = {
    "name": "small",
    "model": "tiny-moe",
    "sites": 4,
    "site": {"device": "rtx-4090"},
    "network": {"rate": "100 Mbit", "rtt": "40 ms"},
    "batch": 64,
    "steps": 1000,
    "options": {"sync_every": 50},
    "methods": ["ddp", "diloco", {"method": "fomoe", "label": "half", "options": {"replication": 2}}],
    "uncertainty": {"compute": "10 %", "rate": "10 %", "reason": "a test"},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_committed_scenario_has_the_five_methods(path: Path) -> None:
    scenario = load_scenario(path)
    assert {"ddp", "diloco", "photon", "lordo", "fomoe"} <= {entry.method for entry in scenario.methods}


def test_common_options_go_to_the_methods_that_have_them(tmp_path: Path) -> None:
    methods = {entry.label: entry for entry in load_scenario(write(tmp_path)).methods}
    assert methods["ddp"].options == {}
    assert methods["diloco"].options == {"sync_every": 50}
    assert methods["half"].options == {"sync_every": 50, "replication": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no-such"}, "no-such"),
        ({"site": {"device": "abacus"}}, "abacus"),
        ({"sites": 0}, "sites"),
        ({"batch": 2}, "a sequence for each of 4 sites"),
        ({"network": {"rate": "100 MB", "rtt": "1 ms"}}, "rate"),
        ({"network": {"rate": "100 Mbit"}}, "rate with rtt, or a topology"),
        ({"network": {"topology": "nowhere"}}, "no such topology"),
        ({"network": {"topology": "lan"}, "sweep": {"rate": ["1 Gbit"]}}, "none of these with a topology"),
        ({"methods": ["ddp", "ddp"]}, "labels that differ"),
        ({"methods": ["telepathy"]}, "telepathy"),
        ({"methods": [{"method": "diloco", "options": {"sync_evry": 3}}]}, "sync_evry"),
        ({"methods": [{"method": "fomoe", "options": {"replication": 5}}]}, "found 5"),
        ({"model": "tiny"}, "a model with experts"),
        ({"sweep": {"rate": ["0 Mbit"]}}, "rates above zero"),
        ({"sweep": {"latency": ["1 ms"]}}, "latency"),
        ({"uncertainty": {"compute": "10 %"}}, "reason"),
        ({"uncertainty": {"reason": "none"}}, "compute, rate or both"),
        ({"uncertainty": {"rate": "100 %", "reason": "none"}}, "less than 1"),
        ({"site": {"device": "h100", "step_time_factor": {"value": 1.2}}}, "reason"),
        ({"targets": [2]}, "share"),
        ({"name": "Not A Name"}, "name"),
    ],
)
def test_a_bad_scenario_is_one_clear_error(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_scenario(write(tmp_path, **changes))


def test_a_missing_scenario_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_scenario(tmp_path / "none.yaml")
