"""Run records: what a run leaves behind, self-describing, in the files that harness.records.layout names.

spec.json and result.json carry `schema_version`, which holds for the whole record; without one it is 1. A record of
this program's version or an older one may hold no key that the schema does not know. One of a newer version may: what
this program does not know is passed over, and everything that it knows must still be right.

A directory without a result is an unfinished run. `read_run` reads a record; an unreadable one is an InputError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AllowInfNan, BaseModel, Field

from harness.records.files import open_to_read, read_bytes, write_atomically
from harness.records.layout import RunDirectory
from harness.records.schema_version import validate_record, version_of
from harness.spec.run_spec import SCHEMA_VERSION, RunSpec
from netsim.documents import Document, Label, validate
from netsim.errors import InputError
from netsim.topology import Topology, topology_from

BUCKETS = ("data", "compute", "pacing", "communication", "evaluation", "checkpoint")
MOST_SITES = 4096
MOST_LINE = 2**20  # bytes of a line of steps.jsonl or events.jsonl
ROUNDING = 1e-6  # seconds by which a bucket may be negative: waiting is timed inside it and subtracted

Seconds = Annotated[float, Field(ge=0, le=3.2e9)]  # a century
Spent = Annotated[float, Field(ge=-ROUNDING, le=3.2e9)]  # in a time bucket
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
MeanBytes = Annotated[float, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Loss = Annotated[float, AllowInfNan(True)]  # nats per token; NaN where training diverged
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^/\x00-\x1f\x7f]+$")]
RunId = Annotated[
    str, Field(max_length=255, pattern=r"^[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*$")
]  # also the name of a directory
Sentence = Annotated[str, Field(max_length=10_000)]


class Record(Document):
    """A frozen piece of a record."""


def _by_bucket(seconds: dict[str, float]) -> dict[str, float]:
    for name in seconds:
        if name not in BUCKETS:
            raise ValueError(f"seconds by bucket: {', '.join(BUCKETS)}")
    return seconds


ByBucket = Annotated[dict[str, Spent], AfterValidator(_by_bucket)]


class Step(Record):
    """One local step of one worker. `clock`: seconds since training began, at the end of the step."""

    step: Count
    clock: Seconds
    loss: Loss | None = None  # training loss of the local batch, nats per token; null for a worker that sat out
    lr: float = Field(ge=0)
    tokens: Count  # cumulative, of this worker
    seconds: ByBucket  # by bucket; what was spent since the previous step's end
    payload_bytes: Bytes  # cumulative, sent by this worker
    evaluation_loss: Loss | None = None  # held-out loss, nats per token; the same at every worker
    committed: int | None = Field(default=None, ge=-1)  # with declared faults: this worker's last synchronised step
    metrics: dict[str, Loss] = {}


class SiteAbsence(Record):
    """A site that was no member of the run after `from_step` until after `to_step`; None: until its end."""

    site: Word
    rank: Count
    from_step: Count
    to_step: Count | None


class Result(Record):
    """The outcome of a run. Times in seconds, sizes in bytes, losses in nats per token."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, lt=2**31)
    id: RunId
    suite: Word
    label: Label
    algorithm: Word
    topology: Word
    seed: int
    sites: int = Field(ge=1, le=MOST_SITES)
    steps: Count
    substrate: Word
    engine: Word
    wall_seconds: Seconds  # training clock of the slowest worker: first step's start to last step's end
    compute_seconds: Spent  # mean over workers; with paced compute, the slots (compute and pacing)
    communication_seconds: Spent  # mean over workers; exposed
    seconds: ByBucket  # mean over workers, by bucket
    startup_seconds: Seconds  # from the command to the first step
    tokens: Count  # of all workers
    final_loss: Loss | None
    target_loss: float | None
    time_to_target_seconds: Seconds | None
    payload_bytes_per_worker: MeanBytes
    planned_payload_bytes_per_worker: MeanBytes
    wire_bytes_per_worker: MeanBytes
    memory_bytes: dict[Word, Bytes]  # by component, of the worker that holds most
    predicted_memory_bytes: dict[Word, Bytes]
    peak_rss_bytes: Bytes  # largest resident set of a trainer process
    slot_overruns: Count
    valid: bool
    why_invalid: list[Sentence] = Field(default_factory=list)
    marks: list[Sentence] = Field(default_factory=list)
    # With declared faults only (harness.run.fault_cost.FaultCost):
    faults: dict[Word, Count] | None = None  # how many were injected, by kind
    generations: Count | None = None  # of the membership, the first included
    tokens_committed: Count | None = None
    tokens_lost: Count | None = None  # trained in vain: lost with a worker, or made anew
    bytes_repeated: int | None = None  # payload beyond the plan's: steps made anew, transfers broken off
    bytes_caught_up: Bytes | None = None  # payload by which sites that came back caught up
    detection_seconds: list[Seconds] | None = None  # from each fault to the first worker that noticed
    recovery_seconds: list[Seconds] | None = None  # from there until all members went on
    absences: list[SiteAbsence] | None = None  # in the order in which sites came back
    return_seconds: list[Seconds] | None = None  # from each crash until the restarted worker asked to be let in

    @property
    def caveats(self) -> list[str]:
        """What a reader should know of a valid run."""
        return self.marks


class ProbedLink(Record):
    """One directed pair as the link gate found it: milliseconds, Mbit/s, shares. The gate's own report holds more."""

    model_config = {"extra": "ignore"}

    source: Word
    target: Word
    rtt_ms_asked: float | None = Field(default=None, ge=0)
    rtt_ms: float | None = Field(default=None, ge=0)
    rate_mbit_asked: float | None = Field(default=None, ge=0)
    goodput_mbit_expected: float | None = Field(default=None, ge=0)
    goodput_mbit: float | None = Field(default=None, ge=0)
    loss_asked: float | None = Field(default=None, ge=0, le=1)
    loss: float | None = Field(default=None, ge=-1, le=1)  # negative where packets came twice
    passed: bool


class LinkRecord(Record):
    """`longhaul wan check --json`, as stored before and after a run."""

    model_config = {"extra": "ignore"}

    passed: bool
    links: tuple[ProbedLink, ...]


class RecordedEvent(Record):
    """One line of events.jsonl, without the facts that only some kinds have. `at`: seconds since the cell began."""

    model_config = {"extra": "ignore"}

    at: float
    kind: Word
    site: str | None = None
    rank: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class Run:
    """A finished run, read back. `links`: "before" and "after", those that were probed."""

    directory: Path
    spec: RunSpec
    result: Result
    topology: Topology  # that the suite names
    environment: dict[str, Any]
    links: dict[str, LinkRecord]

    def steps(self, rank: int = 0) -> Iterator[Step]:
        """Of one worker, in their order."""
        path = RunDirectory(self.directory).worker(rank).steps
        return read_lines(path, Step, self.result.schema_version)

    def all_steps(self) -> Iterator[tuple[int, Step]]:
        """Every step of every worker, by rank; of a worker that logged none there are none."""
        for rank in range(self.result.sites):
            if RunDirectory(self.directory).worker(rank).steps.exists():
                for step in self.steps(rank):
                    yield rank, step

    def events(self) -> list[RecordedEvent]:
        """What happened, in the order of time."""
        path = RunDirectory(self.directory).events
        if not path.exists():
            return []
        return sorted(read_lines(path, RecordedEvent, self.result.schema_version), key=lambda event: event.at)


def write_json(path: Path, document: object) -> None:
    """Atomically: a reader sees the whole file or none."""
    text = document.model_dump_json(indent=1) if isinstance(document, BaseModel) else json.dumps(document, indent=1)
    write_atomically(path, text + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(path), "", f"not JSON ({error})", "a complete record") from None


R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, kind: type[R]) -> R:
    """The document in `path`; its own `schema_version` says whether it may hold unknown keys."""
    document = read_json(path)
    return validate_record(kind, document, str(path), version_of(document))


def read_lines(path: Path, kind: type[R], version: int = SCHEMA_VERSION) -> Iterator[R]:
    """The lines of a JSON-lines file, each validated. version: the schema's, of the record that the file belongs to."""
    try:
        with open_to_read(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), start=1):
                try:
                    document = json.loads(line)
                except (ValueError, RecursionError):
                    found = line.strip()[:80].decode(errors="replace")
                    raise InputError(str(path), f"line {number}", found, "one JSON document") from None
                yield validate_record(kind, document, str(path), version, f"line {number}")
    except OSError as error:
        raise InputError(str(path), "", error.strerror, "a readable record") from None


def read_run(directory: Path) -> Run:
    """The finished run in `directory`. InputError for a record that is damaged or contradicts itself."""
    files = RunDirectory(directory)
    result = read_record(files.result, Result)
    spec = read_record(files.spec, RunSpec)
    return assemble_run(directory, spec, result, _mapping(files.environment), _links(files.links), str(files.result))


def assemble_run(
    directory: Path,
    spec: RunSpec,
    result: Result,
    environment: dict[str, Any],
    links: dict[str, LinkRecord],
    where: str,
) -> Run:
    """A run whose result is of its spec; `where` names the result in messages."""
    topology = topology_from(spec.topology, f"{RunDirectory(directory).spec}: topology")
    agree = (
        ("suite", result.suite, spec.suite),
        ("label", result.label, spec.label),
        ("algorithm", result.algorithm, spec.method_name),
        ("topology", result.topology, topology.name),
        ("seed", result.seed, spec.seed),
    )
    for field, found, expected in agree:
        if found != expected:
            raise InputError(where, field, found, f"that of spec.json, {expected!r}")
    if result.sites != len(topology.sites):
        raise InputError(where, "sites", result.sites, f"the {len(topology.sites)} sites of spec.json")
    if result.steps > spec.train.steps:
        raise InputError(where, "steps", result.steps, f"at most the {spec.train.steps} of spec.json")
    return Run(directory, spec, result, topology, environment, links)


def _mapping(path: Path) -> dict[str, Any]:
    """A file that a record may lack."""
    if not path.exists() and not path.is_symlink():
        return {}
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(str(path), "", type(document).__name__, "a mapping of fields")
    return document


def _links(path: Path) -> dict[str, LinkRecord]:
    document = _mapping(path)
    return {
        when: validate(LinkRecord, document[when], str(path), when)
        for when in ("before", "after")
        if document.get(when) is not None
    }


def failure_reason(files: RunDirectory) -> str:
    """Why an unfinished run has no result, as far as its record says."""
    failure = _mapping(files.failure)
    return str(failure.get("error") or failure.get("reason") or "no result was written")[:500]


def finished_runs(folder: Path) -> list[Path]:
    """Every directory under `folder` (or `folder` itself) that holds a result, in name order."""
    if not folder.is_dir():
        raise InputError(str(folder), "", "no such directory", "a directory of runs")
    return sorted(path.parent for path in folder.rglob(RunDirectory(folder).result.name))
