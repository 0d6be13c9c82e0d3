"""Run records: what a run leaves behind, self-describing, in the files that harness.records.layout names.

A directory without a result is an unfinished run. `read_run` reads a record; an unreadable one is an InputError.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.records.layout import RunDirectory
from netsim.documents import validate
from netsim.errors import InputError

if TYPE_CHECKING:
    from harness.spec.run_spec import RunSpec

BUCKETS = ("data", "compute", "pacing", "communication", "evaluation", "checkpoint")


class Record(BaseModel):
    """Newer programs may add fields; these stay."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Step(Record):
    """One local step of one worker. `clock`: seconds since training began, at the end of the step."""

    step: int
    clock: float
    loss: float | None = None  # training loss of the local batch, nats per token; null for a worker that sat out
    lr: float
    tokens: int  # cumulative, of this worker
    seconds: dict[str, float]  # by bucket; what was spent since the previous step's end
    payload_bytes: int  # cumulative, sent by this worker
    evaluation_loss: float | None = None  # held-out loss, nats per token; the same at every worker
    committed: int | None = None  # with declared faults: the last synchronised step that this worker is part of
    metrics: dict[str, float] = {}


class Result(Record):
    """The outcome of a run. Times in seconds, sizes in bytes, losses in nats per token."""

    id: str
    suite: str
    label: str
    algorithm: str
    topology: str
    seed: int
    sites: int
    steps: int
    substrate: str
    engine: str
    wall_seconds: float  # training clock of the slowest worker: first step's start to last step's end
    compute_seconds: float  # mean over workers; with paced compute, the slots (compute and pacing)
    communication_seconds: float  # mean over workers; exposed
    seconds: dict[str, float]  # mean over workers, by bucket
    startup_seconds: float  # from the command to the first step
    tokens: int  # of all workers
    final_loss: float | None
    target_loss: float | None
    time_to_target_seconds: float | None
    payload_bytes_per_worker: float
    planned_payload_bytes_per_worker: float
    wire_bytes_per_worker: float
    memory_bytes: dict[str, int]  # by component, of the worker that holds most
    predicted_memory_bytes: dict[str, int]
    peak_rss_bytes: int  # largest resident set of a trainer process
    slot_overruns: int
    valid: bool
    why_invalid: list[str] = Field(default_factory=list)
    marks: list[str] = Field(default_factory=list)  # what a reader should know of a valid run
    # With declared faults only (harness.run.fault_cost.FaultCost):
    faults: dict[str, int] | None = None  # how many struck, by kind
    generations: int | None = None  # of the membership, the first included
    tokens_committed: int | None = None
    tokens_lost: int | None = None  # trained in vain: lost with a worker, or made anew
    bytes_repeated: int | None = None  # payload beyond the plan's: steps made anew, transfers broken off
    bytes_caught_up: int | None = None  # payload by which sites that came back caught up
    detection_seconds: list[float] | None = None  # from each fault to the first worker that noticed
    recovery_seconds: list[float] | None = None  # from there until all members went on
    return_seconds: list[float] | None = None  # from each crash until the worker started again asked to be let in


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    directory: Path
    spec: RunSpec
    result: Result
    environment: dict[str, Any]
    links: dict[str, Any]

    def steps(self, rank: int = 0) -> Iterator[Step]:
        return read_lines(RunDirectory(self.directory).worker(rank).steps, Step)


def write_json(path: Path, document: object) -> None:
    """Atomically: a reader sees the whole file or none."""
    text = document.model_dump_json(indent=1) if isinstance(document, BaseModel) else json.dumps(document, indent=1)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), "", error.strerror, "a readable record") from None
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "", f"not JSON ({error})", "a complete record") from None


R = TypeVar("R", bound=BaseModel)


def read_lines(path: Path, kind: type[R]) -> Iterator[R]:
    """The lines of a JSON-lines file, each validated."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    document = json.loads(line)
                except (ValueError, RecursionError):
                    raise InputError(str(path), f"line {number}", line.strip()[:80], "one JSON document") from None
                yield validate(kind, document, str(path), f"line {number}")
    except UnicodeDecodeError as error:
        raise InputError(str(path), "", f"not UTF-8 ({error.reason})", "JSON lines") from None
    except OSError as error:
        raise InputError(str(path), "", error.strerror, "a readable record") from None


def read_run(directory: Path) -> Run:
    """The finished run in `directory`."""
    from harness.spec.run_spec import RunSpec  # here, for it brings torch along, and whoever only reports needs none

    files = RunDirectory(directory)
    result = validate(Result, read_json(files.result), str(files.result))
    spec = validate(RunSpec, read_json(files.spec), str(files.spec))
    environment, links = read_json(files.environment), read_json(files.links)
    return Run(directory, spec, result, environment, links)


def finished_runs(folder: Path) -> list[Path]:
    """Every directory under `folder` (or `folder` itself) that holds a result, in name order."""
    if not folder.is_dir():
        raise InputError(str(folder), "", "no such directory", "a directory of runs")
    return sorted(path.parent for path in folder.rglob(RunDirectory(folder).result.name))
