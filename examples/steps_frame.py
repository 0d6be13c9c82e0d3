"""All steps of all runs as one pandas frame: one row for each run, worker and step.

    python examples/steps_frame.py runs/quickstart

Needs records of `longhaul run`; prints where the time went, by method.
"""

import sys

import pandas as pd

import longhaul

rows = [
    {"method": run.spec.label, "seed": run.spec.seed, "worker": rank, **step.model_dump()}
    for run in longhaul.read_runs(*sys.argv[1:])
    for rank in range(run.result.sites)
    for step in run.steps(rank)
]
steps = pd.json_normalize(
    rows
)  # `seconds` becomes a column for each bucket: seconds.compute, seconds.communication, ...

buckets = [name for name in steps.columns if name.startswith("seconds.")]
totals = steps.groupby(["method", "worker"])[buckets].sum().groupby("method").mean()
totals.columns = [name.removeprefix("seconds.") for name in totals.columns]
print(f"{len(steps)} rows: {steps['method'].nunique()} methods, {steps['worker'].nunique()} workers")
print(totals.round(2).to_string())
