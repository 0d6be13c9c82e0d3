"""The records that a report reads, gathered from any number of directories.

Reports read stored files only. A record may come from elsewhere, so nothing in it is trusted: fields are validated,
files are found by their fixed names, and no path leads out of the run's own directory. A record that cannot be read is
named, and hides no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.records.layout import RunDirectory, run_directories, suite_description
from harness.records.run_record import Run, failure_reason, read_json, read_record, read_run
from harness.records.step_columns import StepColumns, read_step_columns
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError, Phrase, nearest


@dataclass(frozen=True)
class Stored(Run):
    """A finished run. `group` tells suites apart, and the same suite run in two places.

    logged: the steps of each worker that logged any, by rank; read once, with the record.
    """

    group: str = ""
    logged: Mapping[int, StepColumns] = field(default_factory=dict, compare=False)

    @property
    def emulated_on(self) -> str:
        return f"{self.result.substrate}/{self.result.engine}"


@dataclass(frozen=True)
class Unfinished:
    """A run that began and left no result."""

    directory: Path
    spec: RunSpec
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """A directory whose record is damaged, and what is wrong with it."""

    directory: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """Everything found under the directories that the user named."""

    runs: tuple[Stored, ...]
    unfinished: tuple[Unfinished, ...]
    baselines: dict[str, str]  # by group
    superseded: int = 0  # older records of cells that were run again
    unreadable: tuple[Unreadable, ...] = ()


def collect(folders: Sequence[Path], baseline: str | None = None) -> Collection:
    """All runs under `folders`. InputError if not one of them is finished and readable: the first damage, if any."""
    directories: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            beside = [path.name for path in folder.parent.glob("*") if path.is_dir()]
            meant = nearest(folder.name, beside)
            raise InputError(str(folder), "", Phrase("no such directory"), "a directory of runs", meant)
        known = {path.resolve() for path in directories}
        directories |= {run.path: None for run in run_directories(folder) if run.path.resolve() not in known}
    runs: list[Stored] = []
    unfinished: list[Unfinished] = []
    unreadable: list[Unreadable] = []
    problems: list[InputError] = []
    for directory in directories:
        try:
            if RunDirectory(directory).finished:
                runs.append(_stored(directory))
            else:
                unfinished.append(_unfinished(directory))
        except InputError as problem:
            problems.append(problem)
            unreadable.append(Unreadable(directory, str(problem)))
    if not runs:
        if problems:
            raise problems[0]
        where = ", ".join(str(folder) for folder in folders)
        raise InputError(
            where, "", f"{len(unfinished)} unfinished runs and no result.json", "at least one finished run"
        )
    latest = _grouped(_latest(runs))
    done = {_cell_of(run.directory, run.spec): _changed(RunDirectory(run.directory).result) for run in latest}
    failed = [
        run
        for run in unfinished
        if _changed(RunDirectory(run.directory).spec) > done.get(_cell_of(run.directory, run.spec), 0)
    ]
    superseded = len(runs) + len(unfinished) - len(latest) - len(failed)
    return Collection(tuple(latest), tuple(failed), _baselines(latest, baseline), superseded, tuple(unreadable))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _cell_of(directory: Path, spec: RunSpec) -> tuple[Path, str, str, str, int]:
    """What makes two records the same cell of a suite, though code or settings changed in between."""
    return directory.parent, spec.suite, spec.label, str(spec.topology.get("name")), spec.seed


def _latest(runs: Sequence[Stored]) -> list[Stored]:
    """Of records of one cell on one substrate the newest: what an earlier version of code or suite left is history."""
    newest: dict[object, Stored] = {}
    for run in sorted(runs, key=lambda run: _changed(RunDirectory(run.directory).result)):
        newest[_cell_of(run.directory, run.spec), run.result.substrate, run.result.engine] = run
    return sorted(newest.values(), key=lambda run: run.directory)


def _grouped(runs: Sequence[Stored]) -> list[Stored]:
    """Groups by suite, told apart by directory and by where they were emulated if a suite has several of these."""
    homes: dict[str, set[Path]] = {}
    places: dict[str, set[str]] = {}
    for run in runs:
        homes.setdefault(run.spec.suite, set()).add(run.directory.parent)
        places.setdefault(run.spec.suite, set()).add(run.emulated_on)
    grouped = []
    for run in runs:
        suite, home = run.spec.suite, run.directory.parent
        group = suite if len(homes[suite]) == 1 else f"{suite} ({_short(home, homes[suite])})"
        group = group if len(places[suite]) == 1 else f"{group} on {run.emulated_on}"
        grouped.append(replace(run, group=group))
    return grouped


def _short(home: Path, homes: set[Path]) -> str:
    """The shortest end of `home` that no other home of the suite has."""
    for count in range(1, len(home.parts)):
        end = home.parts[-count:]
        if sum(other.parts[-count:] == end for other in homes) == 1:
            return "/".join(end)
    return str(home)


def _stored(directory: Path) -> Stored:
    """The run in `directory`, all its lines checked: what is damaged is found now, not halfway through a report."""
    run = read_run(directory)
    run.events()
    return Stored(**vars(run), group=run.spec.suite, logged=_logged(run))


def _logged(run: Run) -> dict[int, StepColumns]:
    paths = {rank: RunDirectory(run.directory).worker(rank).steps for rank in range(run.result.sites)}
    version = run.result.schema_version
    return {rank: read_step_columns(path, version) for rank, path in paths.items() if path.exists()}


def _unfinished(directory: Path) -> Unfinished:
    files = RunDirectory(directory)
    return Unfinished(directory, read_record(files.spec, RunSpec), failure_reason(files))


def _baselines(runs: Sequence[Stored], asked: str | None) -> dict[str, str]:
    """What each group is compared with: the label asked for, or the suite's own, or its DDP, or its first label."""
    chosen: dict[str, str] = {}
    for group in sorted({run.group for run in runs}):
        members = [run for run in runs if run.group == group]
        labels = sorted({run.spec.label for run in members})
        own = _suites_own(members[0].directory.parent)
        ddp = [run.spec.label for run in members if run.spec.method == "ddp"]
        candidates = [asked, own, *sorted(ddp), labels[0]]
        chosen[group] = next(label for label in candidates if label in labels)
    if asked is not None and asked not in chosen.values():
        labels = sorted({run.spec.label for run in runs})
        raise InputError.unknown("--baseline", "", asked, labels, "one of the labels")
    return chosen


def _suites_own(folder: Path) -> str | None:
    """The baseline that suite.json names; none where there is no such file, or a damaged one."""
    try:
        document = read_json(suite_description(folder))
    except InputError:
        return None
    found = document.get("baseline") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None
