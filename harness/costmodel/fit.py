"""Fitting the cost model's constants to stored runs.

The constants are those under which the simulator, given each run's own plan and topology, comes closest to the exposed
communication that the run measured. Evaluations and native steps are measured directly. Nothing is fitted to wall
time, and no run is weighted by its length: every run counts with its relative error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import fmean, median, pstdev

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import least_squares

from harness.costmodel.calibration import Calibration, Constants, Domain, Error, NativeStep, Recovery, Span
from harness.costmodel.fault_inputs import fault_events, state_bytes
from harness.costmodel.predict import evaluation_flops, predict, reach
from harness.costmodel.usable_runs import why_unusable
from harness.records.run_record import Run
from harness.spec.resolved import ResolvedRun
from netsim.errors import InputError
from netsim.simulated.fair_rates import Floats

LEAST_RUNS = 3
SMALLEST_SHARE = 0.02  # exposed communication below this share of the wall time is not resolved by a run

NOTICED = 1e-3  # relative change of communication, over all runs, for an e-fold of a constant

# Natural logarithms of the constants, in this order, are what is fitted.
_NAMES = ("efficiency", "message_seconds", "transfer_seconds", "byte_seconds", "host_bandwidth")
_START = np.log([0.95, 1e-4, 1e-3, 1e-10, 5e8])
_LOW = np.log([0.5, 1e-7, 1e-6, 1e-13, 1e7])
_HIGH = np.log([1.0, 1e-2, 0.3, 1e-8, 1e11])
_STEP = np.full(
    len(_NAMES), 0.05
)  # relative step of the finite differences: the simulator rounds to nanoseconds and bytes


def fit(
    runs: Sequence[Run], name: str, where: str, jobs: int = 1, progress: Callable[[], None] = lambda: None
) -> Calibration:
    """Constants from `runs`, which must be valid and move something."""
    usable = [run for run in runs if _informative(run)]
    if len(usable) < LEAST_RUNS:
        found = f"{len(usable)} usable of {len(runs)} runs"
        raise InputError(where, "", found, f"at least {LEAST_RUNS} valid runs of more than one site that communicate")
    base = _measured(usable, name)

    with Parallel(n_jobs=jobs) as workers:

        def residuals(logarithms: Floats) -> Floats:
            progress()
            trial = base.model_copy(update={"constants": _constants(logarithms)})
            return np.array(workers(delayed(_residual)(run, trial) for run in usable))

        solution = least_squares(
            residuals, _START, bounds=(_LOW, _HIGH), diff_step=_STEP, loss="soft_l1", f_scale=0.05, max_nfev=20
        )
        # A constant that the runs do not notice is not measured by them: it stays out.
        noticed = np.linalg.norm(np.asarray(solution.jac), axis=0) > NOTICED
        fitted = base.model_copy(update={"constants": _constants(solution.x, [bool(each) for each in noticed])})
        errors = [abs(error) for error in workers(delayed(_wall_error)(run, fitted) for run in usable)]
    return fitted.model_copy(update={"error": Error(mean=fmean(errors), max=max(errors), runs=len(errors))})


def _informative(run: Run) -> bool:
    """Whether the run's time says something about the network: no faults, and it moved something."""
    result = run.result
    return result.communication_seconds > 0 and result.sites > 1 and result.faults is None and not why_unusable(run)


def _constants(logarithms: Floats, noticed: Sequence[bool] = (True,) * len(_NAMES)) -> Constants:
    values = zip(_NAMES, np.exp(logarithms), noticed, strict=True)
    return Constants.model_validate({name: float(f"{value:.4g}") for name, value, kept in values if kept})


def _residual(run: Run, calibration: Calibration) -> float:
    """Relative error of exposed communication."""
    predicted = predict(run.spec, calibration, run.result.steps).communication_seconds
    assert predicted is not None
    measured = run.result.communication_seconds
    return (predicted - measured) / max(measured, SMALLEST_SHARE * run.result.wall_seconds)


def _wall_error(run: Run, calibration: Calibration) -> float:
    predicted = predict(run.spec, calibration, run.result.steps).wall_seconds
    assert predicted is not None
    return predicted / run.result.wall_seconds - 1


def _measured(runs: Sequence[Run], name: str) -> Calibration:
    """Everything but the fitted constants."""
    spans = []
    for run in runs:
        resolved = ResolvedRun.of(run.spec)
        spans.append(reach(resolved.topology, resolved.plan.truncated(run.result.steps)))
    rates, rtts, sites_of, sizes = zip(*spans, strict=True)
    suites = sorted({run.spec.suite for run in runs})
    return Calibration(
        name=name,
        source=f"longhaul calibrate on {len(runs)} runs of {', '.join(suites)}, {datetime.now(UTC):%Y-%m-%d}",
        fitted_from=tuple(sorted(run.result.id for run in runs)),
        substrates=tuple(sorted({f"{run.result.substrate}/{run.result.engine}" for run in runs})),
        environment={key: runs[0].environment.get(key) for key in ("cpu", "cores", "kernel", "python")},
        constants=Constants(),
        step_overhead_seconds=_step_overhead(runs),
        evaluation_seconds_per_flop=_evaluations(runs),
        native_steps=native_steps(runs),
        domain=Domain(
            rate=Span(low=min(s.low for s in rates), high=max(s.high for s in rates)),
            rtt=Span(low=min(s.low for s in rtts), high=max(s.high for s in rtts)),
            sites=Span.over(sites_of),
            transfer_bytes=Span(low=min(s.low for s in sizes), high=max(s.high for s in sizes)),
        ),
        error=Error(mean=0, max=0, runs=0),
    )


def _step_overhead(runs: Sequence[Run]) -> float:
    """What a paced step takes beyond its slot, in neither communication nor evaluation: the median over the runs."""
    found = []
    for run in runs:
        if run.spec.compute.step_seconds is not None:
            waited = sum(run.result.seconds[name] for name in ("communication", "evaluation", "checkpoint"))
            found.append((run.result.wall_seconds - waited) / run.result.steps - run.spec.compute.step_seconds)
    return float(f"{max(0.0, median(found)):.4g}") if found else 0.0


def _evaluations(runs: Sequence[Run]) -> dict[str, float]:
    """Seconds per forward FLOP by method: medians over the runs."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        steps, every = run.result.steps, run.spec.train.evaluate_every
        count = steps // every + (run.result.steps == run.spec.train.steps and steps % every > 0)
        if count:
            rate = run.result.seconds["evaluation"] / count / evaluation_flops(run.spec, run.result.sites)
            found[run.spec.method].append(rate)
    everything = [rate for rates in found.values() for rate in rates]
    if not everything:
        return {}
    by_method = {method: float(f"{median(rates):.4g}") for method, rates in sorted(found.items())}
    return {"": float(f"{median(everything):.4g}"), **by_method}


def _computing(run: Run) -> list[float]:
    """Seconds of every step of every worker but its first; none of a run that was stored without its steps."""
    found: defaultdict[int, list[float]] = defaultdict(list)
    for rank, step in run.all_steps():
        if step.loss is not None:
            found[rank].append(step.seconds["compute"] + step.seconds["data"])
    return [second for seconds in found.values() for second in seconds[1:]]


def native_steps(runs: Sequence[Run]) -> tuple[NativeStep, ...]:
    """Mean and spread of a native step's computation, by what it depends on, in valid runs."""
    found: defaultdict[tuple[str, str, int, int], list[Run]] = defaultdict(list)
    for run in runs:
        if run.spec.compute.mode == "native" and run.result.valid:
            found[run.spec.method, run.spec.model.name, run.spec.train.batch, run.result.sites].append(run)
    measured = []
    for (method, model, batch, sites), alike in sorted(found.items()):
        seconds = [second for run in alike for second in _computing(run)]
        if seconds:
            mean, ids = fmean(seconds), tuple(sorted(run.result.id for run in alike))
            spread = pstdev(seconds) / mean
            step = NativeStep(
                method=method, model=model, batch=batch, sites=sites, seconds=mean, spread=spread, fitted_from=ids
            )
            measured.append(step)
    return tuple(measured)


def fit_recovery(runs: Sequence[Run], calibration: Calibration) -> Recovery | None:
    """Constants from those of `runs` that are valid and recovered from losses as expected; None if there are none.

    calibration: what is known of the host but for its recovery.
    """
    usable = [run for run in runs if run.result.valid and run.result.recovery_seconds]
    starts = [late for run in usable for late in _starts(run)]
    unexplained = Recovery(
        meeting_seconds=0.0,
        start_seconds=_rounded(starts),
        checkpoint_seconds_per_byte=_rounded([rate for run in usable for rate in _checkpoints(run)]),
        source="",
    )
    without = calibration.model_copy(update={"recovery": unexplained})
    by_run = {run.result.id: excess for run in usable if (excess := _excesses(run, without))}
    excesses = [excess for run_excesses in by_run.values() for excess in run_excesses]
    if not excesses:
        return None
    suites = ", ".join(sorted({run.spec.suite for run in usable if run.result.id in by_run}))
    return Recovery(
        meeting_seconds=_rounded(excesses),
        start_seconds=unexplained.start_seconds,
        checkpoint_seconds_per_byte=unexplained.checkpoint_seconds_per_byte,
        source=f"medians of {len(excesses)} recoveries and {len(starts)} returns in runs of {suites}",
        fitted_from=tuple(sorted(by_run)),
    )


def _rounded(seconds: Sequence[float]) -> float:
    return float(f"{max(0.0, median(seconds)):.4g}") if seconds else 0.0


def _starts(run: Run) -> list[float]:
    """How long after the time that the suite names each crashed worker was back."""
    topology = ResolvedRun.of(run.spec).topology
    events = fault_events(run.spec, topology, run.result.steps)
    absences = {s.lasts for s in events if s.kind == "crash" and s.step is not None and s.lasts is not None}
    if len(absences) != 1:  # which return belongs to which absence is not in the record
        return []
    (absence,) = absences
    if run.result.absences is not None and run.spec.compute.step_seconds is not None:
        absence = 0.0  # its program starts at once, and waits for its step
    return [returned - absence for returned in run.result.return_seconds or []]


def _checkpoints(run: Run) -> list[float]:
    """Seconds per byte of a checkpoint, where it is taken so often that what else a bucket holds does not count."""
    every = run.spec.train.checkpoint_every
    count = (run.result.steps - 1) // every if every else 0
    return [run.result.seconds["checkpoint"] / count / state_bytes(run.result.memory_bytes)] if count else []


def _excesses(run: Run, calibration: Calibration) -> list[float]:
    """What each recovery took beyond what follows from plan and network."""
    cost = predict(run.spec, calibration, run.result.steps).fault_cost
    measured = run.result.recovery_seconds or []
    if cost is None or len(cost.recovery_seconds) != len(measured):
        return []
    return [took - expected for took, expected in zip(measured, cost.recovery_seconds, strict=True)]
