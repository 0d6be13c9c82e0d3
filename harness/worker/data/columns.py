"""Columns of tables on disk: Parquet files, and data sets as Hugging Face's `save_to_disk` writes them.

Both are read by pyarrow, so neither needs the `datasets` package. A column of text gives one document a row, a column
of lists of integers gives tokens. A data set with splits is trained on `train`, and `validation`, or else `test`, is
held out; other splits are left aside. A data set of one split, and a folder of Parquet files, are held out by the rules
for files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.worker.data.tokens import Tokens, narrow
from netsim.errors import InputError, Phrase

HELD_OUT_SPLITS = ("validation", "valid", "val", "dev", "test")


@dataclass(frozen=True)
class DataColumn:
    """One file's: either `documents` of text, or `tokens` (n,)."""

    name: str
    group: str
    documents: tuple[str, ...] = ()
    tokens: Tokens | None = None


def parquet_columns(path: Path, field: str) -> Iterator[DataColumn]:
    """Column `field` of `path` itself, or of every *.parquet below it; each file is its own group."""
    import pyarrow.parquet as parquet

    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        with _readable(file, "a Parquet file"):
            opened = parquet.ParquetFile(file)
        _check_column(file, field, opened.schema_arrow.names)
        with _readable(file, "a Parquet file"):
            chunks = [batch.column(0) for batch in opened.iter_batches(columns=[field])]
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        yield _column(file, name, file.stem, field, chunks)


def dataset_columns(path: Path, field: str) -> Iterator[DataColumn]:
    """Column `field` of a `Dataset` or a `DatasetDict` that `save_to_disk` wrote to the folder `path`."""
    splits = path / "dataset_dict.json"
    if not splits.is_file():
        yield from _split_columns(path, field, "")
        return
    listed = _read_json(splits).get("splits", [])
    names = [Path(str(name)).name for name in listed] if isinstance(listed, list) else []
    held_out = next((name for name in HELD_OUT_SPLITS if name in names), None)
    if "train" in names and held_out is not None:
        yield from _split_columns(path / "train", field, "train-")
        yield from _split_columns(path / held_out, field, "val-")  # a name by which it is held out
        return
    for name in names:
        yield from _split_columns(path / name, field, f"{name}-")


def _split_columns(folder: Path, field: str, prefix: str) -> Iterator[DataColumn]:
    import pyarrow

    state = folder / "state.json"
    if not state.is_file():
        allowed = "a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` has written"
        raise InputError("data", "path", f"{folder} without state.json", allowed)
    found = _read_json(state)
    if found.get("_indices_data_files"):
        raise InputError("data", "path", f"{folder} with an index of rows", "a data set saved after flatten_indices()")
    with _readable(state, "a state.json that lists its Arrow files"):
        files = [folder / Path(str(entry["filename"])).name for entry in found["_data_files"]]
    for file in files:
        with _readable(file, "an Arrow file"), pyarrow.memory_map(str(file)) as source:
            reader = pyarrow.ipc.open_stream(source)
            _check_column(file, field, reader.schema.names)
            chunks = [batch.column(field) for batch in reader]
            yield _column(file, prefix + file.name, f"{prefix}{file.stem}", field, chunks)


def _column(file: Path, name: str, group: str, field: str, chunks: list[Any]) -> DataColumn:
    import pyarrow
    from pyarrow import types

    if not chunks:
        return DataColumn(name, group)
    kind = chunks[0].type
    if types.is_string(kind) or types.is_large_string(kind):
        return DataColumn(name, group, tuple(text for chunk in chunks for text in chunk.drop_null().to_pylist()))
    if (types.is_list(kind) or types.is_large_list(kind)) and types.is_integer(kind.value_type):
        flat = pyarrow.chunked_array([chunk.flatten() for chunk in chunks]).to_numpy()
        if flat.size and not 0 <= flat.min() <= flat.max() < 2**32:
            raise InputError("data", "field", f"{field}: tokens from {flat.min()} to {flat.max()}", "0 to 2^32 - 1")
        return DataColumn(name, group, tokens=narrow(flat))
    raise InputError("data", "field", f"{field!r} of {kind} in {file}", "a column of text, or of lists of integers")


def _check_column(file: Path, field: str, names: list[str]) -> None:
    if field not in names:
        raise InputError.unknown("data", "field", field, names, prefix=f"a column of {file}:")


def _read_json(path: Path) -> dict[str, Any]:
    with _readable(path, "a JSON object"):
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(type(found).__name__)
    return found


@contextmanager
def _readable(file: Path, allowed: str) -> Iterator[None]:
    """Whatever a file that cannot be read raises becomes one message. pyarrow's errors are kinds of these."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(str(file), "", Phrase(first), allowed) from error
