"""All steps of a worker as columns: what a report reads of a large record, at a fraction of the time of `Step`s.

Lines are checked many at a time against `Step`'s own bounds, in its strictest reading, without a Python object per
line. A file with a line that fails is read again line by line, as `Step`s: that reading decides, and words the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from harness.records.files import open_to_read
from harness.records.run_record import BUCKETS, MOST_LINE, Spent, Step, read_lines
from netsim.errors import InputError

NUMBERS = ("clock", "loss", "lr", "payload_bytes", "evaluation_loss")
WHOLE = ("step", "tokens")
_LINES = 2048  # that are checked together


@dataclass(frozen=True)
class StepColumns:
    """Of one worker, an entry per line of its log, in their order; NaN where a line has nothing.

    whole: `step` and `tokens`, int64. numbers: NUMBERS. seconds: by bucket, 0 where a line names none. metrics: by
    name. All of equal length; units as in `Step`.
    """

    whole: dict[str, NDArray[np.int64]]
    numbers: dict[str, NDArray[np.float64]]
    seconds: dict[str, NDArray[np.float64]]
    metrics: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.whole["step"])


def read_step_columns(path: Path, version: int) -> StepColumns:
    """All of a worker's steps.jsonl. version: the schema's, of its record. InputError for the first wrong line."""
    chunks = _strictly_read(path)
    if chunks is None:
        chunks = [_columns([step.model_dump() for step in read_lines(path, Step, version)])]
    names = dict.fromkeys(name for chunk in chunks for name in chunk.metrics)
    absent = [np.full(len(chunk), np.nan) for chunk in chunks]
    return StepColumns(
        {name: np.concatenate([chunk.whole[name] for chunk in chunks]) for name in WHOLE},
        {name: np.concatenate([chunk.numbers[name] for chunk in chunks]) for name in NUMBERS},
        {name: np.concatenate([chunk.seconds[name] for chunk in chunks]) for name in BUCKETS},
        {
            name: np.concatenate([chunk.metrics.get(name, none) for chunk, none in zip(chunks, absent, strict=True)])
            for name in names
        },
    )


def _strictly_read(path: Path) -> list[StepColumns] | None:
    """The file's lines, some thousands at a time; None if one of them fails the strict reading, or there are none."""
    chunks: list[StepColumns] = []
    try:
        with open_to_read(path) as file:
            lines = iter(lambda: file.readline(MOST_LINE), b"")
            while chunk := list(islice(lines, _LINES)):
                rows = _checked_together(chunk)
                if rows is None:
                    return None
                chunks.append(_columns(rows))
    except OSError as error:
        raise InputError(str(path), "", error.strerror, "a readable record") from None
    return chunks or None


def _columns(rows: Sequence[dict[str, Any]]) -> StepColumns:
    spent = [row["seconds"] for row in rows]
    logged = [row.get("metrics") or {} for row in rows]
    names = dict.fromkeys(name for metrics in logged for name in metrics)
    return StepColumns(
        {name: np.array([row[name] for row in rows], np.int64) for name in WHOLE},
        {name: np.array([row.get(name) for row in rows], float) for name in NUMBERS},  # None becomes NaN
        {name: np.array([seconds.get(name, 0.0) for seconds in spent], float) for name in BUCKETS},
        {name: np.array([metrics.get(name) for metrics in logged], float) for name in names},
    )


def _checked_together(lines: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """What the lines say, one mapping each; None if that is not certain.

    Each must begin an object: then no object, and because line ends may not stand in strings no string either, goes on
    from one line into the next.
    """
    if not all(line.startswith(b"{") for line in lines):
        return None
    try:
        rows = _strict_rows().validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError:
        return None
    return rows if len(rows) == len(lines) else None


@cache
def _strict_rows() -> TypeAdapter[list[dict[str, Any]]]:
    """`Step` as mappings: its types and bounds, checked without a call of Python's."""
    mapping: Any = TypedDict
    # What `Step` checks by calls.
    checked: dict[str, Any] = {
        "seconds": mapping("seconds", dict.fromkeys(BUCKETS, NotRequired[Spent])),
        "committed": Annotated[int, Field(ge=-1, lt=2**63)] | None,
    }
    kinds = {name: checked.get(name, field.rebuild_annotation()) for name, field in Step.model_fields.items()}
    needed = {name for name, field in Step.model_fields.items() if field.is_required()}
    row = mapping("row", {name: kind if name in needed else NotRequired[kind] for name, kind in kinds.items()})
    for made in (checked["seconds"], row):
        made.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    rows: Any = GenericAlias(list, (row,))
    return TypeAdapter(rows)
