"""Which stored runs say something about the cost model."""

from __future__ import annotations

from harness.records.run_record import Run

SLOT_EXCESS = 0.02  # of the paced slots' time, above which the host was too slow for the clock that the model assumes


def why_unusable(run: Run) -> str:
    """Why a run says nothing about the model; empty if it does."""
    result = run.result
    if not result.valid:
        return f"invalid: {'; '.join(result.why_invalid)}"
    if run.spec.compute.sites:
        return "unlike sites: a mean over them says little about each"
    if run.spec.compute.step_seconds is not None and result.faults is None:  # a fault is no slowness of the host
        slots = result.steps * run.spec.compute.step_seconds
        excess = sum(result.seconds[name] for name in ("data", "compute", "pacing")) / slots - 1
        if excess > SLOT_EXCESS:
            return f"its paced slots took {excess:.1%} too long: this host's computation did not fit them"
    return ""
