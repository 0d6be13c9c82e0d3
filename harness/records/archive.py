"""Runs to compare with: from run directories, or from one file that keeps what comparing needs of many runs.

Such a file has a JSON document per line: spec, result and environment of one run. It is small enough to be committed,
so that a change of the model is held against the same measurements everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.records.files import open_to_read, write_atomically
from harness.records.run_record import (
    Record,
    Result,
    Run,
    assemble_run,
    finished_runs,
    read_run,
)
from harness.records.schema_version import validate_record, version_of
from harness.spec.run_spec import RunSpec
from netsim.documents import validate
from netsim.errors import InputError


class _Line(Record):
    spec: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]


def read_runs(sources: Sequence[Path], left_out: Callable[[InputError], None] | None = None) -> list[Run]:
    """Every finished run under the directories and in the files, each once, ordered by id.

    left_out: is called for each record that cannot be read, which then hides no other; without it, and where none can
    be read, the first one's InputError is raised.
    """
    runs: dict[str, Run] = {}
    problems: list[InputError] = []
    for read in (one for source in sources for one in _records_in(source)):
        try:
            run = read()
        except InputError as error:
            if left_out is None:
                raise
            problems.append(error)
        else:
            runs[run.result.id] = run
    if problems and not runs:
        raise problems[0]
    for problem in problems:
        assert left_out is not None
        left_out(problem)
    return [runs[key] for key in sorted(runs)]


def store_runs(runs: Sequence[Run], path: Path) -> None:
    """What comparing needs of the runs, in one file, atomically."""
    lines = [
        json.dumps(
            {
                "spec": run.spec.model_dump(mode="json"),
                "result": run.result.model_dump(mode="json"),
                "environment": {key: run.environment.get(key) for key in ("cpu", "cores", "kernel", "python")},
            }
        )
        for run in runs
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def _records_in(source: Path) -> Iterator[Callable[[], Run]]:
    """What reads each record of `source`."""
    if not source.is_file():
        yield from (partial(read_run, path) for path in finished_runs(source))
        return
    try:
        with open_to_read(source) as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise InputError(str(source), "", error.strerror, "a readable file of runs") from None
    yield from (partial(_stored, source, number, line) for number, line in enumerate(lines, start=1))


def _stored(path: Path, number: int, text: bytes) -> Run:
    where, place = str(path), f"line {number}"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(where, place, text.strip()[:80].decode(errors="replace"), "one JSON document") from None
    line = validate(_Line, document, where, place)
    return assemble_run(
        path.parent,
        validate_record(RunSpec, line.spec, where, version_of(line.spec), f"{place}.spec"),
        validate_record(Result, line.result, where, version_of(line.result), f"{place}.result"),
        line.environment,
        {},
        f"{where}: {place}.result",
    )
