"""A validation that can fail: with the model made wrong on purpose, the stored runs are no longer predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from harness.costmodel import predict
from harness.costmodel.calibration import load_calibration
from harness.costmodel.validation import validate_runs
from harness.records.archive import read_runs
from harness.spec.resolved import ResolvedRun
from netsim import collectives
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.topology import Topology

DOCS = Path(__file__).parents[2] / "docs"
MEAN, MAX = 2.0, 6.3  # per cent of exposed communication, without loss of packets: 1.25 x what is reached
Changed = tuple[Topology, Compute, dict[str, Any]]


def delays(factor: float) -> Callable[[Topology, Compute], Changed]:
    def change(topology: Topology, compute: Compute) -> Changed:
        links = tuple(replace(link, delay=factor * link.delay) for link in topology.links)
        return replace(topology, links=links), compute, {}

    return change


def goodput(factor: float) -> Callable[[Topology, Compute], Changed]:
    return lambda topology, compute: (topology.scaled(rates=factor), compute, {})


def window(topology: Topology, compute: Compute) -> Changed:
    transport = topology.transport.model_copy(update={"buffer": 10 * topology.transport.buffer})
    return replace(topology, transport=transport), compute, {}


def backward(topology: Topology, compute: Compute) -> Changed:
    return topology, replace(compute, backward_share=0.3), {}


def send_buffers_off(topology: Topology, compute: Compute) -> Changed:
    """Members go on when the network has carried what they send: val-uneven is then 3 to 9 % too long."""
    calibrated = load_calibration(DOCS / "calibration.yaml").link_model
    return topology, compute, {"link_model": replace(calibrated, send_buffers=False)}


def ring_rule_off(topology: Topology, compute: Compute) -> Changed:
    return topology, compute, {"choose": partial(collectives.choose, topology)}


def communication_errors(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Changed] | None) -> list[float]:
    """Per cent, signed, of every stored run."""
    if change is not None:

        def mutated(plan: Any, topology: Topology, compute: Compute, **more: Any) -> Any:
            topology, compute, other = change(topology, compute)
            return simulate(plan, topology, compute, **{**more, **other})

        monkeypatch.setattr(predict, "simulate", mutated)
    calibration = load_calibration(DOCS / "calibration.yaml")
    # Links that lose packets have an error of their own, and a prediction of them takes many draws.
    stored = read_runs([DOCS / "validation-runs.jsonl"])
    runs = [run for run in stored if not ResolvedRun.of(run.spec).topology.loses_packets]
    rows = validate_runs(runs, calibration).rows
    assert len(rows) >= 24
    return [
        100 * (row.predicted_communication_seconds / row.measured_communication_seconds - 1)
        for row in rows
        if row.predicted_communication_seconds is not None
    ]


def mean(errors: list[float]) -> float:
    return fmean(map(abs, errors))


def test_communication_is_predicted_within_its_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = communication_errors(monkeypatch, None)
    assert mean(errors) <= MEAN
    assert max(map(abs, errors)) <= MAX


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [delays(0.0), delays(0.5), goodput(1.1), goodput(0.9), backward, send_buffers_off, ring_rule_off],
    ids=[
        "delays x0",
        "delays x0.5",
        "goodput +10 %",
        "goodput -10 %",
        "backward share 0.3",
        "send buffers off",
        "ring rule off",
    ],
)
def test_a_wrong_model_fails_validation(change: Callable[..., Changed], monkeypatch: pytest.MonkeyPatch) -> None:
    errors = communication_errors(monkeypatch, change)
    assert mean(errors) > MEAN or max(map(abs, errors)) > MAX, (mean(errors), max(map(abs, errors)))


@pytest.mark.slow
def test_what_the_stored_runs_do_not_exercise(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stored run is bound by its buffers: nothing here would notice a window ten times as large."""
    plain = communication_errors(monkeypatch, None)
    assert communication_errors(monkeypatch, window) == pytest.approx(plain, abs=0.5)
