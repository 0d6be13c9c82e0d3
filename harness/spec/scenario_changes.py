"""Other values than a scenario's file has, by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netsim.errors import InputError

_LENGTHS = ("steps", "tokens", "tokens_per_parameter")  # of a run: one of them


def changed_document(document: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """With the changes; one of steps, tokens and tokens_per_parameter takes the place of the others."""
    for key, value in changes.items():
        *outer, last = key.split(".")
        inner = document
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InputError(where, key, f"{name}, which is not a mapping", "a key like deadline or network.rate")
        for other in _LENGTHS if key in _LENGTHS else ():
            document.pop(other, None)
        inner[last] = value
    return document
