"""Runs to compare with: from run directories, or from one file that keeps what comparing needs of many runs.

Such a file has a JSON document per line: spec, result and environment of one run. It is small enough to be committed,
so that a change of the model is held against the same measurements everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.records.run_record import Result, Run, finished_runs, read_lines, read_run
from harness.spec.run_spec import RunSpec
from netsim.documents import validate


class _Line(BaseModel):
    spec: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]


def read_runs(sources: Sequence[Path]) -> list[Run]:
    """Every finished run under the directories and in the files, each once, ordered by id."""
    found: dict[str, Run] = {}
    for source in sources:
        runs = _stored(source) if source.is_file() else [read_run(path) for path in finished_runs(source)]
        found.update({run.result.id: run for run in runs})
    return [found[key] for key in sorted(found)]


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
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def _stored(path: Path) -> list[Run]:
    return [
        Run(
            path.parent,
            validate(RunSpec, line.spec, str(path), f"line {number}.spec"),
            validate(Result, line.result, str(path), f"line {number}.result"),
            line.environment,
            {},
        )
        for number, line in enumerate(read_lines(path, _Line), start=1)
    ]
