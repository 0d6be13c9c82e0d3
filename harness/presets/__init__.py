"""Named models and devices, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from algorithms.shape import ModelShape
from netsim.documents import read_yaml, validate
from netsim.errors import InputError

FOLDER = Path(__file__).parent


def find_model(model: str | dict[str, Any], where: str) -> ModelShape:
    """A model by the name of its preset, or given in full (optionally over a preset named by `like`)."""
    if isinstance(model, str):
        path = _file("models", model, where)
        return validate(ModelShape, {"name": model, **read_yaml(path)}, str(path))
    fields = dict(model)
    if "like" in fields:
        base = read_yaml(_file("models", str(fields.pop("like")), where))
        fields = {**base, **fields}
    return validate(ModelShape, fields, where, "model")


def _file(kind: str, name: str, where: str) -> Path:
    path = FOLDER / kind / f"{name}.yaml"
    known = sorted(found.stem for found in (FOLDER / kind).glob("*.yaml"))
    if name not in known:
        raise InputError(where, kind.rstrip("s"), name, f"one of {', '.join(known)}")
    return path
