"""docs/methods.md speaks of every option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from algorithms.method import find, names

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", names())
def test_every_option_is_documented_where_its_method_is(name: str) -> None:
    parts = re.split(r"^## |^\*\*(?=\w+\*\*)", TEXT, flags=re.MULTILINE)
    own = [part for part in parts if re.match(rf"{name}\b", part)]
    assert len(own) == 1
    shared = next(part for part in parts if part.startswith("Common to all methods"))
    for option in find(name, {}, "test").Options.model_fields:
        assert f"`{option}`" in own[0] or f"`{option}`" in shared, option
