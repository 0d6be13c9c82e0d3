"""Parallelism, workers, precision and offload within a site, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from algorithms.shape import ModelShape
from harness.costmodel.projection import Variant, project
from harness.costmodel.projection_rows import rows_of
from harness.spec.scenario import Scenario, load_scenario
from harness.spec.site_layout import DeviceLayout
from netsim.errors import InputError
from tests.projection.test_scenario import write

SHAPE = ModelShape(layers=8, width=1024, heads=16, vocabulary=1024, sequence=1000)
LAYOUT = {
    "tensor": 4, "pipeline": 2, "kernel_mfu": 0.5, "device_link": "800 Gbit", "nic": "80 Gbit", "source": "a test",
}  # fmt: skip


def layout(**changes: Any) -> DeviceLayout:
    return DeviceLayout.model_validate({**LAYOUT, **changes})


def scenario_of(folder: Path, **changes: Any) -> Scenario:
    return load_scenario(write(folder, **{"model": SHAPE.model_dump(exclude_none=True), "batch": 64, **changes}))


def test_a_step_is_what_its_layout_takes() -> None:
    """16 devices: two replicas of 4 x 2; four micro-batches of 2 sequences: 4.096 MB of numbers pass each layer."""
    found = layout().times(SHAPE, 16, 2, 16, 1.0, again=False)
    assert found.tensor == pytest.approx(4 * 4 * 4 * 1.5 * 4.096e6 / 1e11)
    assert found.bubble == pytest.approx((1.0 + found.tensor) / 4)
    assert found.stages == pytest.approx(4 * 2 * 4.096e6 / 4 / 1e11)
    assert found.replicas == 0  # 3 x 1/2 of the weights, four times over the NIC: hidden
    idle = layout().times(SHAPE, 16, 2, 16, 0.0, again=False)
    assert idle.replicas == pytest.approx(4 * 1.5 * 2 * SHAPE.count() / 8 / 1e10)


def test_recomputation_and_chunks_change_what_they_should() -> None:
    plain = layout().times(SHAPE, 16, 2, 16, 1.0, again=False)
    again = layout().times(SHAPE, 16, 2, 16, 1.0, again=True)
    chunks = layout(interleave=2).times(SHAPE, 16, 2, 16, 1.0, again=False)
    assert again.tensor == pytest.approx(1.5 * plain.tensor)
    assert chunks.bubble == pytest.approx(plain.bubble / 2)
    assert chunks.stages == pytest.approx(plain.stages * 2)
    alone = layout(tensor=1, pipeline=1).times(SHAPE, 1, 2, 16, 1.0, again=False)
    assert alone.total == 1.0


def test_the_pipelines_bubble_is_the_published_one() -> None:
    """Narayanan et al. 2021, section 2.2: (p - 1) / m of the ideal time."""
    found = layout(tensor=1, pipeline=4, device_link="1 Tbit").times(SHAPE, 4, 1, 8, 1.0, again=False)
    assert found.bubble == pytest.approx(3 / 8)


MEGATRON = {  # layers, width, heads, devices, stages, chunks, sequences; seconds with selective and full recomputation
    "175B": (96, 12288, 96, 64, 8, 3, 64, 13.75, 18.13),
    "530B": (105, 20480, 128, 280, 35, 3, 280, 37.83, 49.05),
    "1T": (128, 25600, 160, 512, 64, 1, 512, 71.49, 94.42),
}


@pytest.mark.parametrize("name", MEGATRON)
def test_megatrons_steps_come_out_within_a_tenth(name: str) -> None:
    """Korthikanti et al. 2022 (arXiv 2205.05198), tables 3 and 5, on A100 with NVLink of 300 GB/s and 200 Gbit/s a
    device. One kernel_mfu for all: its 22B model, whose matrices are a quarter as wide, needs 0.47."""
    layers, width, heads, devices, stages, chunks, sequences, *published = MEGATRON[name]
    shape = ModelShape(layers=layers, width=width, heads=heads, vocabulary=51200, sequence=2048)
    links = {"device_link": "2400 Gbit", "nic": "200 Gbit", "tensor": 8, "pipeline": stages, "interleave": chunks}
    flops = shape.flops_per_token() * sequences * 2048
    for again, seconds in zip((False, True), published, strict=True):
        more = (1 - 6 * 51200 * width / shape.flops_per_token()) / 3 if again else 0.0
        computing = flops * (1 + more) / (devices * 312e12 * 0.63)
        found = layout(**links).times(shape, devices, 1, sequences, computing, again)
        assert found.total == pytest.approx(seconds, rel=0.1)


def test_a_site_with_a_layout_takes_its_step(tmp_path: Path) -> None:
    site = {"device": "h100", "devices": 16, "micro_batch": 2, "parallel": LAYOUT}
    scenario = scenario_of(tmp_path, site=site, methods=["ddp"])
    projected = project(scenario, Variant(scenario.methods[0], 4))
    flops = 16 * 1000 * SHAPE.flops_per_token()
    computing = flops / (16 * 989.4e12 * 0.5)
    expected = layout().times(SHAPE, 16, 2, 16, computing, again=False).total
    assert projected.step_seconds == pytest.approx(expected, rel=1e-3)  # beside the optimizer's own FLOPs


@pytest.mark.parametrize(("sharding", "per_parameter"), [("full", 18), ("optimizer", 18 + 6), ("none", 2 * 18)])
def test_replicas_hold_whole_what_they_do_not_shard(tmp_path: Path, sharding: str, per_parameter: int) -> None:
    """Two replicas: optimizer sharding keeps gradients (4) and half-precision weights (2) whole at both."""
    site = {"device": "h100", "devices": 16, "parallel": {**LAYOUT, "sharding": sharding}}
    scenario = scenario_of(tmp_path, site=site, methods=["ddp"])
    memory = project(scenario, Variant(scenario.methods[0], 4)).memory
    state = sum(size for name, size in memory.items() if name not in ("activations", "communication_buffers"))
    assert state == per_parameter * SHAPE.count()


def test_workers_average_inside_first_and_send_together(tmp_path: Path) -> None:
    """Four workers with a NIC of 25 Mbit/s fill 100 Mbit/s; inside, 2 x 3/4 of the model at 1 Gbit/s per sync."""
    network = {"rate": "1 Gbit", "rtt": "0 ms", "framing": False}
    workers = {"workers": 4, "worker_nic": "25 Mbit", "inside": "1 Gbit"}
    site = {"device": "h100", "devices": 4}
    rows = []
    for changes in ({"site": {**site, **workers}}, {"site": site, "network": {**network, "rate": "100 Mbit"}}):
        scenario = scenario_of(tmp_path, **{"network": network, "methods": ["diloco"], "steps": 500, **changes})
        (row,) = rows_of(scenario, Variant(scenario.methods[0], 4), None)
        rows.append(row)
    inside = 10 * 1.5 * 4 * SHAPE.count() * 8 / 1e9
    assert rows[0].communication_seconds - rows[1].communication_seconds == pytest.approx(inside)


@pytest.mark.parametrize(
    ("precision", "dtypes", "per_parameter"),
    [("fp32", {}, 16), ("mixed", {}, 18), ("bf16", {}, 8), ("fp8", {}, 13), ("mixed", {"inner_moments": "bf16"}, 14)],
)
def test_state_has_the_bytes_of_its_precision(
    tmp_path: Path, precision: str, dtypes: dict[str, str], per_parameter: int
) -> None:
    """fp8 as DeepSeek-V3: fp32 weights and gradients, bf16 moments, a copy of one byte: 4 + 4 + 4 + 1."""
    scenario = scenario_of(tmp_path, precision=precision, state_dtypes=dtypes, methods=["ddp"])
    memory = project(scenario, Variant(scenario.methods[0], 4)).memory
    state = sum(size for name, size in memory.items() if name not in ("activations", "communication_buffers"))
    assert state == per_parameter * SHAPE.count()


def test_fp8_halves_the_activations_but_not_the_logits(tmp_path: Path) -> None:
    kept = []
    for precision in ("mixed", "fp8"):
        scenario = scenario_of(tmp_path, precision=precision, methods=["ddp"])
        kept.append(project(scenario, Variant(scenario.methods[0], 4)).memory["activations"])
    logits = 4 * SHAPE.vocabulary * SHAPE.sequence
    assert kept[0] - logits == 2 * (kept[1] - logits)


def test_offloaded_state_leaves_the_device_and_costs_time(tmp_path: Path) -> None:
    """Gradients (4) go to the host and weights (2) come back at every step, over 8 GB/s of each of two devices."""
    site = {"device": "h100", "devices": 2}
    projected = {}
    for offload in ("none", "optimizer", "both"):
        extra = {} if offload == "none" else {"offload": offload, "host_link": "64 Gbit"}
        scenario = scenario_of(tmp_path, site={**site, **extra}, methods=["diloco"])
        projected[offload] = project(scenario, Variant(scenario.methods[0], 4))
    size = SHAPE.count()
    assert projected["optimizer"].host_memory == 12 * size
    assert projected["both"].host_memory == 20 * size
    slower = projected["optimizer"].step_seconds - projected["none"].step_seconds
    assert slower == pytest.approx(6 * size / 16e9)
    at_syncs = projected["both"].step_seconds - projected["optimizer"].step_seconds
    assert at_syncs == pytest.approx(2 * 8 * size / 16e9 / 50)
    gone = sum(projected["none"].memory.values()) - sum(projected["both"].memory.values())
    assert gone == 20 * size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"site": {"device": "h100", "offload": "outer"}}, "host_link"),
        ({"site": {"device": "h100", "workers": 2}}, "inside"),
        ({"site": {"device": "h100", "devices": 12, "parallel": LAYOUT}}, "multiple of parallel"),
        ({"methods": ["ddp"], "state_dtypes": {"inner_moment": "bf16"}}, "inner_moments"),
        ({"precision": "fp7"}, "fp8"),
    ],
)
def test_wrong_machines_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario_of(tmp_path, **changes)
