"""Trajectories stay what they were; `python -m tests.algorithms.golden` accepts a change."""

from __future__ import annotations

import json

import pytest

from algorithms.method import names
from tests.algorithms.golden import FOLDER, VARIANTS, trajectory

CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_the_trajectory_is_the_golden_one(name: str, variant: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))[variant]
    found = trajectory(name, VARIANTS[name][variant])
    assert found["options"] == expected["options"]
    assert found["payload_bytes"] == expected["payload_bytes"]
    # Quantised wires turn a difference in the last bit of fp32 into a step of the quantiser, on another processor.
    tolerance = 1e-3 if found["options"].keys() & {"wire_dtype", "update_compression"} else 1e-9
    assert found["losses"] == pytest.approx(expected["losses"], rel=tolerance)
    assert found["evaluations"] == pytest.approx(expected["evaluations"], rel=tolerance)


def test_every_method_has_a_golden_trajectory() -> None:
    assert set(VARIANTS) == set(names())
    assert {path.stem for path in FOLDER.glob("*.json")} == set(names())
