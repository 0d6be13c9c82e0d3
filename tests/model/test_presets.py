"""The presets against the tables that they are taken from."""

from __future__ import annotations

from math import inf

import pytest

from algorithms.shape import Role
from harness.spec.presets import FOLDER, find_device, find_model
from harness.worker.model import build_model
from netsim.errors import InputError

MODELS = sorted(path.stem for path in (FOLDER / "models").glob("*.yaml"))
DEVICES = sorted(path.stem for path in (FOLDER / "devices").glob("*.yaml"))

PUBLISHED = {
    # Photon: 12 L d^2 + V d with the released sizes
    "photon-125m": 0.1236e9,
    "photon-350m": 0.354e9,
    "photon-1.3b": 1.311e9,
    "photon-3b": 2.645e9,
    "photon-7b": 6.649e9,
    # LoRDO: the released configurations
    "lordo-16m": 16.3e6,
    "lordo-125m": 123.7e6,
    "lordo-720m": 719.8e6,
    # FoMoE, table 1
    "fomoe-small": 54.36e6,
    "fomoe-medium": 152.9e6,
    "fomoe-large": 1.82e9,
    "fomoe-xl": 13.33e9,
    "fomoe-xxl": 104.2e9,
}
REPORTED = {  # as their reports and released weights count
    "gpt-3": 175e9,
    "llama-2-7b": 6.74e9,
    "llama-2-13b": 13.02e9,
    "llama-2-70b": 68.98e9,
    "llama-3-8b": 8.03e9,
    "llama-70b": 70.55e9,
    "llama-405b": 405.85e9,
    "mixtral-8x7b": 46.7e9,
    "mixtral-8x22b": 140.6e9,
    "deepseek-v3": 671.0e9,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_preset_can_be_read_and_bears_its_file_name(name: str) -> None:
    assert find_model(name, "test").name == name


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameters_are_as_published(name: str, parameters: float) -> None:
    assert find_model(name, "test").count() == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize(("name", "parameters"), REPORTED.items())
def test_well_known_models_count_to_half_a_per_cent(name: str, parameters: float) -> None:
    shape = find_model(name, "test")
    assert shape.count() == sum(p.elements for p in shape.parameters) == pytest.approx(parameters, rel=0.005)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("fomoe-small", 0.0387),
        ("fomoe-medium", 0.220),
        ("fomoe-large", 0.592),
        ("fomoe-xl", 0.647),
        ("fomoe-xxl", 0.662),
    ],
)
def test_sparse_shares_are_those_of_fomoe(name: str, share: float) -> None:
    shape = find_model(name, "test")
    assert shape.count(Role.EXPERT, Role.ROUTER) / shape.count() == pytest.approx(share, rel=0.01)


def test_deepseek_v3_has_37_billion_active_parameters() -> None:
    shape = find_model("deepseek-v3", "test")
    active = shape.count() - shape.count(Role.EXPERT) * (1 - shape.top_k / shape.experts)
    active -= shape.vocabulary * shape.width  # looked up, not multiplied
    assert active == pytest.approx(37e9, rel=0.02)


def test_the_small_mixture_is_as_sparse_as_a_large_one() -> None:
    shape = find_model("tiny-moe", "test")
    assert shape.count(Role.EXPERT, Role.ROUTER) / shape.count() >= 0.6


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", "small"])
def test_models_for_this_machine_are_small(name: str) -> None:
    model = build_model(find_model(name, "test"), 1)
    assert 0.3e6 < sum(p.numel() for p in model.parameters()) < 4e6


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_names_a_source_for_every_number(name: str) -> None:
    device = find_device(name, "test")
    assert device.name == name
    assert 0 < device.flops < device.peak_flops
    assert all(len(source) > 10 for source in device.sources.values())


def test_a_scenario_is_the_source_of_what_it_changes() -> None:
    device = find_device({"like": "h100", "achieved_mfu": 0.5, "price_per_hour": 2.5}, "scenario.yaml")
    assert device.flops == pytest.approx(0.5 * find_device("h100", "test").peak_flops)
    assert device.sources["achieved_mfu"] == device.sources["price_per_hour"] == "scenario.yaml"
    assert "datasheet" in device.sources["peak_flops"]
    own = find_device({"name": "mine", "peak_flops": 1e12, "memory": "8 GB", "achieved_mfu": "40 %"}, "scenario.yaml")
    assert own.flops == pytest.approx(0.4e12)


@pytest.mark.parametrize(
    ("device", "field"),
    [
        ("h1000", "device"),
        ({"like": "nothing"}, "device"),
        ({"like": "h100", "peak_flops": -1}, "peak_flops"),
        ({"like": "h100", "peak_flops": inf}, "peak_flops"),
        ({"like": "h100", "memory": "80 GiBi"}, "memory"),
        ({"like": "h100", "mfu": 0.4}, "mfu"),
        ({"like": "h100", "achieved_mfu": 1.4}, "achieved_mfu"),
        ({"peak_flops": 1e12}, "memory"),
        ({"like": "h100", "sources": "a book"}, "sources"),
        ({"like": "h100", "sources": {"colour": "red"}}, "sources"),
    ],
)
def test_a_wrong_device_is_refused_with_the_field(device: object, field: str) -> None:
    with pytest.raises(InputError, match=field):
        find_device(device, "scenario.yaml")  # type: ignore[arg-type]  # what YAML may hold
