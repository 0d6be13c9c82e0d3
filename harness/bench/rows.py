"""Files of benchmark results: one JSON object a line, appended as measurements finish."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def append_row(results: Path, row: DataclassInstance) -> None:
    """One line more, flushed: a benchmark that is interrupted continues from the last whole line."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def stored_rows(results: Path | None) -> list[dict[str, Any]]:
    """The objects in `results`, in order; none if there is no such file."""
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
