"""Predicted against measured, for stored runs that the calibration did not see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, TypeVar

from harness.costmodel.calibration import FIRST_PRINCIPLES, Calibration, Error
from harness.costmodel.fault_inputs import cut_too_long, has_faults
from harness.costmodel.fault_validation import FaultRow, compare_faults, errors_of
from harness.costmodel.predict import Prediction, predict
from harness.costmodel.usable_runs import why_unusable
from harness.records.run_record import Run
from harness.spec.resolved import ResolvedRun
from netsim.errors import InputError

Name = TypeVar("Name", str, tuple[str, str, str])  # of a group of runs


@dataclass(frozen=True)
class ComparedRun:
    """One run. Times in seconds; `error`: predicted over measured wall time, minus one."""

    id: str
    algorithm: str
    label: str
    topology: str
    substrate: str
    model: str
    sites: int
    measured_wall_seconds: float
    predicted_wall_seconds: float | None
    measured_communication_seconds: float
    predicted_communication_seconds: float | None
    error: float | None
    bytes_exact: bool
    memory_exact: bool
    extrapolated: bool
    eventful: bool  # whether something happened to the network or a site on purpose
    lossy: bool = False  # whether links lose packets
    communication_spread_seconds: float = 0.0  # standard deviation of such runs, predicted
    why_not: str = ""

    @property
    def communication_error(self) -> float | None:
        """Predicted over measured exposed communication, minus one; None without a prediction, or where none was."""
        if self.predicted_communication_seconds is None or not self.measured_communication_seconds:
            return None
        return self.predicted_communication_seconds / self.measured_communication_seconds - 1


def loss_of(row: ComparedRun) -> str:
    """The group of runs that a run belongs to by whether its links lose packets."""
    return "links that lose packets" if row.lossy else "links without loss"


@dataclass(frozen=True)
class CommunicationError:
    """Per cent of exposed communication over some runs: mean and maximum absolute error, and the signed mean. Wall time
    would dilute them, since a paced step takes as long as it is told to.
    """

    runs: int
    mean: float
    max: float
    bias: float

    @classmethod
    def of(cls, rows: Iterable[ComparedRun | SeedGroup]) -> CommunicationError | None:
        errors = [100 * row.communication_error for row in rows if row.communication_error is not None]
        return cls(len(errors), fmean(map(abs, errors)), max(map(abs, errors)), fmean(errors)) if errors else None


@dataclass(frozen=True)
class Spread:
    """Mean and maximum absolute percentage error over some runs."""

    runs: int
    mean: float
    max: float

    @classmethod
    def of(cls, rows: Iterable[ComparedRun]) -> Spread | None:
        errors = [100 * abs(row.error) for row in rows if row.error is not None]
        return cls(len(errors), fmean(errors), max(errors)) if errors else None


@dataclass(frozen=True)
class SeedGroup:
    """Runs under loss that differ in their seed alone. Mean exposed communication in seconds, measured and predicted;
    spread: standard deviation of one run over the mean, measured None of a single run.
    """

    label: str
    topology: str
    substrate: str
    runs: int
    measured: float
    predicted: float
    measured_spread: float | None
    predicted_spread: float

    @property
    def communication_error(self) -> float:
        return self.predicted / self.measured - 1

    @classmethod
    def of(cls, rows: Sequence[ComparedRun]) -> SeedGroup:
        first, seconds = rows[0], [row.measured_communication_seconds for row in rows]
        measured, predicted = fmean(seconds), fmean(row.predicted_communication_seconds or 0.0 for row in rows)
        return cls(
            first.label,
            first.topology,
            first.substrate,
            len(rows),
            measured,
            predicted,
            stdev(seconds) / measured if len(rows) > 1 else None,
            first.communication_spread_seconds / predicted,
        )


@dataclass(frozen=True)
class Validation:
    """All rows. `faults`: runs with declared faults, apart, for they are compared by what these cost.
    `left_out`: runs that were not compared, with the reason.
    """

    basis: str
    rows: tuple[ComparedRun, ...]
    faults: tuple[FaultRow, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def overall(self) -> Spread | None:
        return Spread.of(self.rows)

    def communication_by(self, key: Callable[[ComparedRun], str]) -> dict[str, CommunicationError]:
        """Errors of exposed communication of groups of runs, by name."""
        groups = _grouped(self.rows, key)
        return {name: error for name, rows in groups.items() if (error := CommunicationError.of(rows)) is not None}

    def by(self, key: Callable[[ComparedRun], str]) -> dict[str, Spread]:
        """Errors of groups of runs, by name; groups without a prediction are left out."""
        groups = _grouped(self.rows, key)
        return {name: spread for name, rows in groups.items() if (spread := Spread.of(rows)) is not None}

    @property
    def seed_groups(self) -> tuple[SeedGroup, ...]:
        """Under loss one run says little: it is as random as the loss, and a prediction is the mean of such runs."""
        lossy = (row for row in self.rows if row.lossy and row.communication_error is not None)
        groups = _grouped(lossy, lambda row: (row.label, row.topology, row.substrate))
        return tuple(map(SeedGroup.of, groups.values()))

    @property
    def bytes_exact(self) -> bool:
        return all(row.bytes_exact for row in self.rows)

    @property
    def memory_exact(self) -> bool:
        return all(row.memory_exact for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        overall = self.overall
        return {
            "basis": self.basis,
            "runs": [asdict(row) for row in self.rows],
            "misfortune": {
                "runs": [row.to_json() for row in self.faults],
                "errors": {name: asdict(error) for name, error in errors_of(self.faults).items()},
            },
            "left_out": self.left_out,
            "communication": {
                "all": asdict(error) if (error := CommunicationError.of(self.rows)) else None,
                "by_method": {n: asdict(e) for n, e in self.communication_by(lambda row: row.algorithm).items()},
                "by_topology": {n: asdict(e) for n, e in self.communication_by(lambda row: row.topology).items()},
                "by_loss": {n: asdict(e) for n, e in self.communication_by(loss_of).items()},
                "under_loss": [asdict(group) for group in self.seed_groups],
            },
            "mean_absolute_percentage_error": overall.mean if overall else None,
            "max_absolute_percentage_error": overall.max if overall else None,
            "by_method": {name: asdict(spread) for name, spread in self.by(lambda row: row.algorithm).items()},
            "by_topology": {name: asdict(spread) for name, spread in self.by(lambda row: row.topology).items()},
            "by_substrate": {name: asdict(spread) for name, spread in self.by(lambda row: row.substrate).items()},
            "bytes_exact": self.bytes_exact,
            "memory_exact": self.memory_exact,
        }


def _grouped(rows: Iterable[ComparedRun], key: Callable[[ComparedRun], Name]) -> dict[Name, list[ComparedRun]]:
    """Rows by what `key` says of them, sorted by that."""
    groups: defaultdict[Name, list[ComparedRun]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))


def validate_runs(
    runs: Sequence[Run], calibration: Calibration | None, progress: Callable[[], None] = lambda: None
) -> Validation:
    """Compare every run outside the calibration's fit with its prediction, if it says something about the model."""
    seen = set(calibration.seen) if calibration else set()
    rows: list[ComparedRun] = []
    known: dict[object, Prediction] = {}
    fault_rows: list[FaultRow] = []
    left_out: dict[str, str] = {}
    for run in runs:
        progress()
        if run.result.id in seen:
            left_out[run.result.id] = "the calibration was fitted to it"
        elif why := why_unusable(run):
            left_out[run.result.id] = why
        elif run.result.faults is not None and _changes_members(run):
            fault_rows.append(compare_faults(run, calibration))
        else:
            rows.append(_compare(run, _predicted(run, calibration, known)))
    basis = FIRST_PRINCIPLES if calibration is None else f"calibration {calibration.name}"
    return Validation(basis, tuple(rows), tuple(fault_rows), left_out)


def _changes_members(run: Run) -> bool:
    """Whether its faults cost more than time in which workers wait, as a cut does that is over soon."""
    topology = ResolvedRun.of(run.spec).topology
    return has_faults(run.spec, topology) or bool(cut_too_long(topology, run.spec.network.timeout_seconds))


def held_out_error(runs: Sequence[Run], calibration: Calibration, where: str) -> Error:
    """Relative error of exposed communication on those of `runs` that `calibration` was not fitted to."""
    found = CommunicationError.of(validate_runs(runs, calibration).rows)
    if found is None:
        raise InputError(where, "", f"{len(runs)} runs, none to compare", "valid runs that the fit did not see")
    return Error(mean=float(f"{found.mean / 100:.4g}"), max=float(f"{found.max / 100:.4g}"), runs=found.runs)


def _predicted(run: Run, calibration: Calibration | None, known: dict[object, Prediction]) -> Prediction:
    """The run's prediction, worked out once for all seeds that have one plan, where steps are paced."""
    spec = run.spec
    alike = spec.model_copy(update={"seed": 0}) if spec.compute.step_seconds is not None else spec
    key = alike.model_dump_json(), run.result.steps, ResolvedRun.of(spec).plan
    if key not in known:
        known[key] = predict(spec, calibration, run.result.steps)
    return known[key]


def _compare(run: Run, found: Prediction) -> ComparedRun:
    result = run.result
    planned = result.payload_bytes_per_worker * result.sites
    resolved = ResolvedRun.of(run.spec)
    return ComparedRun(
        id=result.id,
        algorithm=result.algorithm,
        label=result.label,
        topology=result.topology,
        substrate=f"{result.substrate}/{result.engine}",
        model=run.spec.model.name,
        sites=result.sites,
        measured_wall_seconds=result.wall_seconds,
        predicted_wall_seconds=found.wall_seconds,
        measured_communication_seconds=result.communication_seconds,
        predicted_communication_seconds=found.communication_seconds,
        error=found.wall_seconds / result.wall_seconds - 1 if found.wall_seconds is not None else None,
        bytes_exact=round(planned) == found.payload_bytes,
        memory_exact=result.memory_bytes == resolved.heaviest_memory(),
        extrapolated=found.extrapolated,
        eventful=bool(run.spec.topology.get("timeline")),
        lossy=resolved.topology.loses_packets,
        communication_spread_seconds=found.communication_spread_seconds,
        why_not=found.why_not,
    )
