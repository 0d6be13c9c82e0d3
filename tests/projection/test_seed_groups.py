"""Runs under loss that differ in their seed alone are compared by their means."""

from __future__ import annotations

import pytest

from harness.costmodel.validation import ComparedRun, Validation


def row(measured: float, *, topology: str = "lossy", lossy: bool = True, predicted: float | None = 11.0) -> ComparedRun:
    return ComparedRun(
        id=f"ddp-{topology}-{measured}",
        algorithm="ddp",
        label="ddp",
        topology=topology,
        substrate="netns/nfqueue",
        model="tiny",
        sites=4,
        measured_wall_seconds=20 + measured,
        predicted_wall_seconds=31.0,
        measured_communication_seconds=measured,
        predicted_communication_seconds=predicted,
        error=31.0 / (20 + measured) - 1,
        bytes_exact=True,
        memory_exact=True,
        extrapolated=False,
        eventful=False,
        lossy=lossy,
        communication_spread_seconds=0.55,
    )


def test_seeds_are_one_group_with_their_mean_and_spread() -> None:
    (group,) = Validation("", (row(9.0), row(10.0), row(11.0))).seed_groups
    assert group.runs == 3
    assert group.communication_error == pytest.approx(0.1)
    assert group.measured_spread == pytest.approx(0.1)
    assert group.predicted_spread == pytest.approx(0.05)


def test_networks_are_groups_of_their_own() -> None:
    groups = Validation("", (row(9.0), row(10.0, topology="other"))).seed_groups
    assert [(group.topology, group.measured_spread) for group in groups] == [("lossy", None), ("other", None)]


def test_runs_without_loss_or_prediction_are_in_no_group() -> None:
    assert Validation("", (row(9.0, lossy=False), row(10.0, predicted=None))).seed_groups == ()
