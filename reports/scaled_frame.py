"""What runs stand for: their time as that of a larger configuration, beside its projection."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.costmodel.scaled_target import TargetTime, project_target
from netsim.errors import InputError
from reports.frames import INSTRUMENTS
from reports.records import Stored

COLUMNS = (
    "run",
    "scenario",
    "entry",
    "time_scale",
    "payload_scale",
    "seconds",
    "target_seconds",
    "target_communication_seconds",
    "projected_seconds",
    "projected_communication_seconds",
    "evaluator",
    "target_tokens",
    "overrun_share",
)


def standing_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each run that stands for something; evaluation and checkpoints, which the target has not, left out.

    seconds: of the run. target_*: the same in the target's time. projected_*: the cost model's for as many of the
    target's steps. target_tokens: of all sites in that time. overrun_share: of slots that were too short for
    this host's computation, whose excess is no time of the target. Runs with unknown options have no row.
    """
    if not any(run.spec.stands_for for run in runs):
        return pd.DataFrame(columns=list(COLUMNS)).astype({"run": int})
    known: dict[object, TargetTime] = {}
    rows: list[dict[str, object]] = []
    for index, run in enumerate(runs):
        result, target = run.result, run.spec.stands_for
        if target is None:
            continue
        key = (run.group, run.spec.label, run.topology.name, run.spec.seed, result.steps)
        try:
            if key not in known:
                known[key] = project_target(run.spec, result.steps)
        except InputError:
            continue
        projected, k = known[key], run.spec.time_scale
        seconds = result.wall_seconds - sum(result.seconds.get(name, 0.0) for name in INSTRUMENTS)
        values = (
            index,
            target.scenario,
            target.label,
            k,
            target.bytes,
            seconds,
            k * seconds,
            k * result.communication_seconds,
            projected.seconds,
            projected.communication_seconds,
            projected.evaluator,
            result.steps * target.tokens_per_step,
            result.slot_overruns / (result.steps * result.sites),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"run": int})
