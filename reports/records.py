"""The records that a report reads, gathered from any number of directories.

Reports read stored files only. A record may come from elsewhere, so nothing in it is trusted: fields are validated,
files are found by their fixed names, and no path leads out of the run's own directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.records.layout import RunDirectory, run_directories, suite_description
from harness.records.run_record import Record, Result, Step, read_json, read_lines
from netsim.documents import validate
from netsim.errors import InputError
from netsim.topology import Topology, topology_from


class Cell(Record):
    """What a report needs of spec.json. Later programs may have added fields."""

    suite: str
    label: str
    method: str
    options: dict[str, Any] = {}
    topology: dict[str, Any]
    seed: int
    model: dict[str, Any]
    data: dict[str, Any] = {}
    train: dict[str, Any] = {}
    compute: dict[str, Any] = {}
    network: dict[str, Any] = {}
    stands_for: dict[str, Any] | None = None  # harness.spec.scaling.Target


class ProbedLink(Record):
    """One directed pair as the link gate found it: milliseconds, Mbit/s, shares."""

    source: str
    target: str
    rtt_ms_asked: float | None = None
    rtt_ms: float | None = None
    rate_mbit_asked: float | None = None
    goodput_mbit_expected: float | None = None
    goodput_mbit: float | None = None
    loss_asked: float | None = None
    loss: float | None = None
    passed: bool


class LinkReport(Record):
    """`longhaul wan check --json`, as stored before and after a run."""

    passed: bool
    links: tuple[ProbedLink, ...]


class ReportedEvent(Record):
    """One line of events.jsonl. `at`: seconds since the cell began."""

    at: float
    kind: str
    site: str | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Stored:
    """A finished run. `group` tells suites apart, and the same suite run in two places."""

    directory: Path
    group: str
    cell: Cell
    result: Result
    topology: Topology
    environment: dict[str, Any]
    links: dict[str, LinkReport]  # "before", "after"; those that were probed

    @property
    def emulated_on(self) -> str:
        return f"{self.result.substrate}/{self.result.engine}"

    def steps(self) -> Iterator[tuple[int, Step]]:
        """Every step of every worker, by rank."""
        for rank in range(self.result.sites):
            path = _inside(self.directory, RunDirectory(self.directory).worker(rank).steps)
            if path.exists():
                for step in read_lines(path, Step):
                    yield rank, step

    def events(self) -> list[ReportedEvent]:
        """What happened, in the order of time."""
        path = _inside(self.directory, RunDirectory(self.directory).events)
        return sorted(read_lines(path, ReportedEvent), key=lambda one: one.at) if path.exists() else []


@dataclass(frozen=True)
class Unfinished:
    """A run that began and left no result."""

    directory: Path
    cell: Cell
    reason: str


@dataclass(frozen=True)
class Collection:
    """Everything found under the directories that the user named."""

    runs: tuple[Stored, ...]
    unfinished: tuple[Unfinished, ...]
    baselines: dict[str, str]  # by group
    superseded: int = 0  # older records of cells that were run again


def collect(folders: Sequence[Path], baseline: str | None = None) -> Collection:
    """All runs under `folders`. None at all, or a record that cannot be read, is an InputError."""
    found: dict[Path, tuple[Path, Cell]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(str(folder), "", "no such directory", "a directory of runs")
        for directory in (run.path for run in run_directories(folder)):
            path = _inside(directory, RunDirectory(directory).spec)
            if directory.resolve() not in found:
                found[directory.resolve()] = folder, validate(Cell, read_json(path), str(path))
    runs: list[Stored] = []
    unfinished: list[Unfinished] = []
    for directory, (_, cell) in found.items():
        if _inside(directory, RunDirectory(directory).result).exists():
            runs.append(_stored(directory, cell))
        else:
            unfinished.append(_unfinished(directory, cell))
    if not runs:
        where = ", ".join(str(folder) for folder in folders)
        raise InputError(
            where, "", f"{len(unfinished)} unfinished runs and no result.json", "at least one finished run"
        )
    latest = _grouped(_latest(runs))
    done = {_cell_of(run.directory, run.cell): _changed(RunDirectory(run.directory).result) for run in latest}
    failed = [
        run
        for run in unfinished
        if _changed(RunDirectory(run.directory).spec) > done.get(_cell_of(run.directory, run.cell), 0)
    ]
    superseded = len(runs) + len(unfinished) - len(latest) - len(failed)
    return Collection(tuple(latest), tuple(failed), _baselines(latest, baseline), superseded)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _cell_of(directory: Path, cell: Cell) -> tuple[Path, str, str, str, int]:
    """What makes two records the same cell of a suite, though code or settings changed in between."""
    return directory.parent, cell.suite, cell.label, str(cell.topology.get("name")), cell.seed


def _latest(runs: Sequence[Stored]) -> list[Stored]:
    """Of records of one cell on one substrate the newest: what an earlier version of code or suite left is history."""
    newest: dict[object, Stored] = {}
    for run in sorted(runs, key=lambda run: _changed(RunDirectory(run.directory).result)):
        newest[_cell_of(run.directory, run.cell), run.result.substrate, run.result.engine] = run
    return sorted(newest.values(), key=lambda run: run.directory)


def _grouped(runs: Sequence[Stored]) -> list[Stored]:
    """Groups by suite, told apart by directory and by where they were emulated if a suite has several of these."""
    homes: dict[str, set[Path]] = {}
    places: dict[str, set[str]] = {}
    for run in runs:
        homes.setdefault(run.cell.suite, set()).add(run.directory.parent)
        places.setdefault(run.cell.suite, set()).add(run.emulated_on)
    grouped = []
    for run in runs:
        suite, home = run.cell.suite, run.directory.parent
        group = suite if len(homes[suite]) == 1 else f"{suite} ({_short(home, homes[suite])})"
        group = group if len(places[suite]) == 1 else f"{group} on {run.emulated_on}"
        grouped.append(replace(run, group=group))
    return grouped


def _inside(directory: Path, path: Path) -> Path:
    """`path`, unless a link there leads out of `directory`."""
    if not path.resolve().is_relative_to(directory.resolve()):
        raise InputError(str(path), "", "a link that leaves the run's directory", "a file of the record itself")
    return path


def _short(home: Path, homes: set[Path]) -> str:
    """The shortest end of `home` that no other home of the suite has."""
    for count in range(1, len(home.parts)):
        end = home.parts[-count:]
        if sum(other.parts[-count:] == end for other in homes) == 1:
            return "/".join(end)
    return str(home)


def _stored(directory: Path, cell: Cell) -> Stored:
    path = _inside(directory, RunDirectory(directory).result)
    result = validate(Result, read_json(path), str(path))
    if not 1 <= result.sites <= 4096:
        raise InputError(str(path), "sites", result.sites, "1 to 4096 sites")
    spec_path = RunDirectory(directory).spec
    topology = topology_from(cell.topology, f"{spec_path}: topology")
    if (label := result.label) != cell.label:
        raise InputError(str(path), "label", label, f"the label of spec.json, {cell.label!r}")
    return Stored(
        directory, cell.suite, cell, result, topology, _mapping(RunDirectory(directory).environment), _links(directory)
    )


def _mapping(path: Path) -> dict[str, Any]:
    path = _inside(path.parent, path)
    if not path.exists():
        return {}
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(str(path), "", type(document).__name__, "a mapping of fields")
    return document


def _links(directory: Path) -> dict[str, LinkReport]:
    path = RunDirectory(directory).links
    document = _mapping(path)
    return {
        when: validate(LinkReport, document[when], str(path), when)
        for when in ("before", "after")
        if document.get(when) is not None
    }


def _unfinished(directory: Path, cell: Cell) -> Unfinished:
    reason = "no result was written"
    failure = _mapping(RunDirectory(directory).failure)
    if failure:
        reason = str(failure.get("error") or failure.get("reason") or reason)[:500]
    return Unfinished(directory, cell, reason)


def _baselines(runs: Sequence[Stored], asked: str | None) -> dict[str, str]:
    """What each group is compared with: the label asked for, or the suite's own, or its DDP, or its first label."""
    chosen: dict[str, str] = {}
    for group in sorted({run.group for run in runs}):
        members = [run for run in runs if run.group == group]
        labels = sorted({run.cell.label for run in members})
        own = (members[0].cell.model_extra or {}).get("baseline")
        own = own or _mapping(suite_description(members[0].directory.parent)).get("baseline")
        ddp = [run.cell.label for run in members if run.cell.method == "ddp"]
        candidates = [asked, own, *sorted(ddp), labels[0]]
        chosen[group] = next(label for label in candidates if label in labels)
    if asked is not None and asked not in chosen.values():
        labels = sorted({run.cell.label for run in runs})
        raise InputError("--baseline", "", asked, f"one of the labels {', '.join(labels)}")
    return chosen
