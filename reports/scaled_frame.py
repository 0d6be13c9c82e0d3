"""What runs stand for: their time as that of a larger configuration, beside its projection."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.records.layout import RunDirectory
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
    if not any(run.cell.stands_for for run in runs):
        return pd.DataFrame(columns=list(COLUMNS)).astype({"run": int})
    from harness.costmodel.scaled_target import TargetTime, project_target
    from harness.records.run_record import read_json
    from harness.spec.run_spec import RunSpec
    from netsim.documents import validate
    from netsim.errors import InputError

    known: dict[object, TargetTime] = {}
    rows: list[dict[str, object]] = []
    for index, run in enumerate(runs):
        if run.cell.stands_for is None:
            continue
        path, result = RunDirectory(run.directory).spec, run.result
        key = (run.group, run.cell.label, run.topology.name, run.cell.seed, result.steps)
        try:
            spec = validate(RunSpec, read_json(path), str(path))
            if key not in known:
                known[key] = project_target(spec, result.steps)
        except InputError:
            continue
        target, projected, k = spec.stands_for, known[key], spec.time_scale
        assert target is not None
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
