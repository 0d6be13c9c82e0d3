"""The closed form against the simulator: every method, overlapping or not, in steady state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.method import find
from algorithms.shape import ModelShape
from netsim.framing import goodput
from netsim.simulated.closed_form import load_of, times, uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

DENSE = ModelShape(name="dense", layers=6, width=128, heads=4, vocabulary=512, sequence=64)
EXPERTS = ModelShape(
    name="experts", kind="moe", layers=4, width=64, heads=4, experts=16, top_k=4, vocabulary=512, sequence=64
)
ELEVEN_BILLION = ModelShape(name="11.3B", layers=36, width=5120, heads=40, vocabulary=32000, sequence=2048)
METHODS = (
    "ddp", "diloco", "streaming_diloco", "photon", "lordo", "lowrank_ddp", "local_adam", "desloc", "fomoe",
)  # fmt: skip


def options_of(method: str, every: int, overlap: int, bucket_mb: float) -> dict[str, Any]:
    special: dict[str, dict[str, Any]] = {
        "ddp": {"bucket_mb": bucket_mb},
        "streaming_diloco": {"sync_every": every, "overlap": overlap, "layers_per_fragment": 2},
        "photon": {"sync_every": every, "aggregation": ("ps", "ring", "allreduce")[overlap % 3]},
        "lordo": {"sync_every": every, "rank": 8},
        "lowrank_ddp": {"rank": 8},
        "fomoe": {"sync_every": every, "replication": 4, "outer": "diloco"},
    }
    return special.get(method, {"sync_every": every})


def simulated(plan: Plan, rate: float, rtt: float, step: float) -> float:
    topology = uniform_topology(plan.sites, rate, rtt)
    return simulate(plan, topology, Compute((step,) * plan.sites), choose=lambda _: Algorithm.DIRECT).wall_seconds


@given(
    method=st.sampled_from(METHODS),
    sites=st.sampled_from([2, 4, 8]),
    every=st.sampled_from([2, 5, 12, 30]),
    overlap=st.sampled_from([0, 1, 2, 5]),
    bucket_mb=st.sampled_from([0.05, 0.5, 25]),
    wire=st.sampled_from(["fp32", "bf16", "fp4"]),
    rate=st.floats(5.5, 9).map(lambda power: 10**power),
    rtt=st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.4]),
    step=st.floats(-2, 0.5).map(lambda power: 10**power),
)
@settings(max_examples=30, deadline=None)
def test_the_closed_form_is_the_simulator_to_half_a_percent(
    method: str, sites: int, every: int, overlap: int, bucket_mb: float, wire: str, rate: float, rtt: float, step: float
) -> None:
    shape, options = EXPERTS if method == "fomoe" else DENSE, options_of(method, every, overlap, bucket_mb)
    if method == "fomoe" and sites == 2:
        sites = 4  # replication 4
    plan = find(method, {**options, "wire_dtype": wire}, "test").plan(shape, sites, 90)
    total = float(times(load_of(plan), step, rate, rtt).total)
    assert total == pytest.approx(simulated(plan, rate, rtt, step), rel=0.005)
    busiest = 8 * plan.payload_bytes / sites / goodput(rate, 1500)
    assert total >= busiest * (1 - 1e-9)


@pytest.mark.parametrize(("every", "overlap", "rate"), [(30, 5, 3e9), (100, 5, 1e9), (100, 1, 3e9)])
def test_overlapping_fragments_share_a_link(every: int, overlap: int, rate: float) -> None:
    """Streaming DiLoCo of 11.3B parameters between two sites: the queue of several steps, not of each by itself."""
    options = {"sync_every": every, "overlap": overlap, "wire_dtype": "bf16"}
    plan = find("streaming_diloco", options, "test").plan(ELEVEN_BILLION, 2, 210)
    total = float(times(load_of(plan), 1.0, rate, 0.02).total)
    assert total == pytest.approx(simulated(plan, rate, 0.02, 1.0), rel=0.005)
    assert total >= 8 * plan.payload_bytes / 2 / goodput(rate, 1500)


def test_a_steady_state_is_repeated_and_not_walked_through() -> None:
    options = {"sync_every": 30, "overlap": 5, "wire_dtype": "bf16"}
    method = find("streaming_diloco", options, "test")
    short, long = (load_of(method.plan(ELEVEN_BILLION, 2, steps)) for steps in (3000, 300_000))
    per_step = [float(times(load, 1.0, 3e9, 0.02).total) / load.steps for load in (short, long)]
    assert per_step[1] == pytest.approx(per_step[0], rel=0.01)


def test_buckets_wait_behind_results_that_are_in_the_air() -> None:
    """With a delay as long as the backward pass, results queue behind the last bucket: later than each alone."""
    buckets = tuple(Transfer(f"g/{i}", 250_000, (0, 1), ready=(i + 1) / 8) for i in range(8))
    plan = Plan(2, 40, (Recurrence(buckets, 1, 1, 40),))
    for rate in np.logspace(6.5, 8.5, 9):
        total = float(times(load_of(plan), 0.5, rate, 0.3).total)
        assert total == pytest.approx(simulated(plan, float(rate), 0.3, 0.5), rel=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_one_site_has_no_network_to_wait_for(method: str) -> None:
    shape = EXPERTS if method == "fomoe" else DENSE
    options = {**options_of(method, 5, 1, 0.5), **({"replication": 1} if method == "fomoe" else {})}
    plan = find(method, options, "test").plan(shape, 1, 20)
    assert float(times(load_of(plan), 1.0, 1e8, 0.6).communication) == 0
