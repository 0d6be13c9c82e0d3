"""Named models and devices, as files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Self

from pydantic import Field, FiniteFloat, model_validator

from algorithms.shape import ModelShape
from netsim.documents import Document, read_yaml, validate
from netsim.errors import InputError
from netsim.units import Share, Size

FOLDER = Path(__file__).parent
MOST_LAYERS, MOST_EXPERTS = 10_000, 200_000  # of a model in a file: each is described one by one


class Device(Document):
    """An accelerator as the cost model knows it. Every number that is given names where it comes from."""

    name: str = "custom"
    peak_flops: FiniteFloat = Field(gt=0)  # of dense bf16 products, FLOP/s
    memory: Size
    achieved_mfu: Share = Field(gt=0)  # model FLOPs utilisation that training within one site reaches
    watts: FiniteFloat | None = Field(default=None, gt=0)  # board power
    price_per_hour: FiniteFloat | None = Field(default=None, gt=0)  # US dollars
    sources: dict[str, str]  # by field

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        numbers = {"peak_flops", "memory", "achieved_mfu", "watts", "price_per_hour"}
        given = {field for field in numbers if getattr(self, field) is not None}
        if given != self.sources.keys():
            raise ValueError(f"sources for exactly {', '.join(sorted(given))}")
        return self

    @property
    def flops(self) -> float:
        """What training achieves, FLOP/s."""
        return self.peak_flops * self.achieved_mfu


def find_model(model: str | dict[str, Any], where: str, folder: Path | None = None) -> ModelShape:
    """A model by the name of its preset, given in full (optionally over a preset named by `like`), or as somebody's own
    `module`, whose file is named from `folder`."""
    if isinstance(model, str):
        path = _file("models", model, where)
        return validate(ModelShape, {"name": model, **read_yaml(path)}, str(path))
    fields = dict(model)
    if "module" in fields:  # its counting needs torch, which presets do without
        shape: ModelShape = import_module("algorithms.own_model.own_module").counted(fields, where, folder)
        return shape
    if "like" in fields:
        base = read_yaml(_file("models", str(fields.pop("like")), where))
        fields = {**base, **fields}
    shape = validate(ModelShape, fields, where, "model")
    if shape.layers > MOST_LAYERS:
        raise InputError(where, "model.layers", shape.layers, f"at most {MOST_LAYERS}")
    if shape.layers * shape.experts > MOST_EXPERTS:
        raise InputError(where, "model.experts", shape.experts, f"at most {MOST_EXPERTS:,} over all layers")
    return shape


def find_device(device: str | dict[str, Any], where: str) -> Device:
    """A device by the name of its preset, or given in full (optionally over a preset named by `like`).

    Numbers that `where` gives without a source have `where` as their source.
    """
    if isinstance(device, str):
        path = _file("devices", device, where)
        return validate(Device, {"name": device, **read_yaml(path)}, str(path))
    fields = dict(device)
    sources: Any = fields.pop("sources", {})
    base = read_yaml(_file("devices", str(fields.pop("like")), where)) if "like" in fields else {}
    if isinstance(sources, dict):
        own = dict.fromkeys(fields.keys() & Device.model_fields.keys() - {"name"}, where)
        sources = {**base.get("sources", {}), **own, **sources}
    return validate(Device, {**base, **fields, "sources": sources}, where, "device")


def presets(kind: str) -> list[str]:
    """The names of the presets of a kind: `models` or `devices`."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def _file(kind: str, name: str, where: str) -> Path:
    path = FOLDER / kind / f"{name}.yaml"
    known = presets(kind)
    if name not in known:
        raise InputError.unknown(where, kind.rstrip("s"), name, known)
    return path
