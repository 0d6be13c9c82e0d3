"""Fitting what going on after a loss takes on a host, from runs with declared misfortune.

The rest of a recovery follows from plan and network (`harness.expected_toll`); what the runs took beyond it, in the
median, is the constant. A run whose faults were noticed otherwise than expected says nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from harness.calibration import Calibration, Recovery
from harness.calibration_prediction import predict
from harness.fault_prediction import state_bytes, strikes_of
from harness.records import Run


def fit_recovery(runs: Sequence[Run], calibration: Calibration) -> Recovery | None:
    """Constants from those of `runs` that are valid and recovered from losses as expected; None if there are none.

    calibration: what is known of the host but for its recovery.
    """
    usable = [run for run in runs if run.result.valid and run.result.recovery_seconds]
    starts = [late for run in usable for late in _starts(run)]
    known = Recovery(
        meeting_seconds=0.0,
        start_seconds=_rounded(starts),
        checkpoint_seconds_per_byte=_rounded([rate for run in usable for rate in _checkpoints(run)]),
        source="",
    )
    without = calibration.model_copy(update={"recovery": known})
    found = {run.result.id: excess for run in usable if (excess := _excesses(run, without))}
    excesses = [excess for mine in found.values() for excess in mine]
    if not excesses:
        return None
    suites = sorted({run.spec.suite for run in usable if run.result.id in found})
    facts = {
        "meeting_seconds": _rounded(excesses),
        "source": f"medians of {len(excesses)} recoveries and {len(starts)} returns in runs of {', '.join(suites)}",
        "fitted_from": tuple(sorted(found)),
    }
    return known.model_copy(update=facts)


def _rounded(seconds: Sequence[float]) -> float:
    return float(f"{max(0.0, median(seconds)):.4g}") if seconds else 0.0


def _starts(run: Run) -> list[float]:
    """How long after the time that the suite names each crashed worker was back."""
    topology = run.spec.resolve_topology()
    strikes = strikes_of(run.spec, topology, run.result.steps)
    absences = {s.lasts for s in strikes if s.kind == "crash" and s.step is not None and s.lasts is not None}
    if len(absences) != 1:  # which return belongs to which absence is not in the record
        return []
    (absence,) = absences
    return [returned - absence for returned in run.result.return_seconds or []]


def _checkpoints(run: Run) -> list[float]:
    """Seconds per byte of a checkpoint, where it is taken so often that what else a bucket holds does not count."""
    every = run.spec.train.checkpoint_every
    count = (run.result.steps - 1) // every if every else 0
    return [run.result.seconds["checkpoint"] / count / state_bytes(run.result.memory_bytes)] if count else []


def _excesses(run: Run, calibration: Calibration) -> list[float]:
    """What each recovery took beyond what follows from plan and network."""
    toll = predict(run.spec, calibration, run.result.steps).toll
    measured = run.result.recovery_seconds or []
    if toll is None or len(toll.recovery_seconds) != len(measured):
        return []
    return [took - expected for took, expected in zip(measured, toll.recovery_seconds, strict=True)]
