"""Records as tidy frames: one observation per row, one variable per column, units in the names.

Rates in bit/s, sizes in bytes, times in seconds, losses in nats per token. Missing is missing: a target that was not
reached is NaN, never a large number. The training clock leaves out evaluation and checkpoints, which are the harness's
instruments and not the method's; wall time has everything in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import exp
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.records.run_record import BUCKETS, LinkRecord
from harness.records.step_columns import NUMBERS, WHOLE
from reports.records import Collection, Stored

# Columns that are all None in some suites, and numbers all the same.
_MAY_BE_MISSING = (
    "final_loss",
    "final_perplexity",
    "target_loss",
    "time_to_target_seconds",
    "compute_utilisation",
    "rate",
    "rtt",
    "measured_goodput",
)
INSTRUMENTS = ("evaluation", "checkpoint")


def runs_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each finished run, valid or not."""
    frame = pd.DataFrame([_run_row(index, run) for index, run in enumerate(runs)])
    return frame.astype(dict.fromkeys(_MAY_BE_MISSING, float))


def _run_row(index: int, run: Stored) -> dict[str, object]:
    result, topology = run.result, run.topology
    instruments = sum(result.seconds.get(name, 0.0) for name in INSTRUMENTS)
    training = result.wall_seconds - instruments
    pairs = [(a.name, b.name) for a, b in topology.pairs()]
    return {
        "run": index,
        "group": run.group,
        "label": run.spec.label,
        "algorithm": result.algorithm,
        "topology": topology.name,
        "seed": result.seed,
        "sites": result.sites,
        "steps": result.steps,
        "substrate": result.substrate,
        "engine": result.engine,
        "model": run.spec.model.name,
        "options": json.dumps(run.spec.options, sort_keys=True),
        "valid": result.valid,
        "why_invalid": "; ".join(result.why_invalid),
        "wall_seconds": result.wall_seconds,
        "training_seconds": training,
        "compute_seconds": result.compute_seconds,
        "communication_seconds": result.communication_seconds,
        "compute_utilisation": result.compute_seconds / result.wall_seconds if result.wall_seconds > 0 else None,
        "startup_seconds": result.startup_seconds,
        "tokens": result.tokens,
        "final_loss": result.final_loss,
        "final_perplexity": None if result.final_loss is None else exp(min(result.final_loss, 700.0)),
        "target_loss": result.target_loss,
        "time_to_target_seconds": result.time_to_target_seconds,
        "payload_bytes_per_worker": result.payload_bytes_per_worker,
        "planned_payload_bytes_per_worker": result.planned_payload_bytes_per_worker,
        "wire_bytes_per_worker": result.wire_bytes_per_worker,
        "memory_bytes": sum(result.memory_bytes.values()),
        "predicted_memory_bytes": sum(result.predicted_memory_bytes.values()),
        "peak_rss_bytes": result.peak_rss_bytes,
        "slot_overruns": result.slot_overruns,
        "overrun_share": _overrun_share(run),
        "rate": min((topology.rate(*pair) for pair in pairs), default=None),
        "rtt": max((topology.rtt(*pair) for pair in pairs), default=None),
        "measured_goodput": _measured_goodput(run.links.get("before")),
        "directory": str(run.directory),
    }


def _overrun_share(run: Stored) -> float:
    """Paced slots that were too short, as a share of all; 0 with native compute."""
    slots = run.result.steps * run.result.sites
    return run.result.slot_overruns / slots if slots else 0.0


def _measured_goodput(report: LinkRecord | None) -> float | None:
    """TCP goodput of the slowest pair before the run, bit/s."""
    found = [link.goodput_mbit for link in report.links if link.goodput_mbit is not None] if report else []
    return min(found) * 1e6 if found else None


def steps_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each run, worker and step; buckets as columns `<bucket>_seconds`, metrics as `metric.<name>`."""
    logs = [(index, rank, log) for index, run in enumerate(runs) for rank, log in sorted(run.logged.items())]
    lengths = [len(log) for _, _, log in logs]
    columns = {
        "run": np.repeat([index for index, _, _ in logs], lengths),
        "rank": np.repeat([rank for _, rank, _ in logs], lengths),
    }
    columns |= {name: _joined([log.whole[name] for *_, log in logs], int) for name in WHOLE}
    columns |= {name: _joined([log.numbers[name] for *_, log in logs]) for name in NUMBERS}
    columns |= {f"{name}_seconds": _joined([log.seconds[name] for *_, log in logs]) for name in BUCKETS}
    for name in dict.fromkeys(name for *_, log in logs for name in log.metrics):
        columns[f"metric.{name}"] = _joined([log.metrics.get(name, np.full(len(log), np.nan)) for *_, log in logs])
    frame = pd.DataFrame(columns)
    instruments = frame[[f"{name}_seconds" for name in INSTRUMENTS]].sum(axis=1)
    return frame.assign(training_clock=frame["clock"] - instruments.groupby([frame["run"], frame["rank"]]).cumsum())


def _joined(parts: Sequence[NDArray[Any]], kind: type = float) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.array([], kind)


def curves_frame(steps: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and evaluation: loss against step, seconds, tokens of all workers, bytes per worker."""
    evaluated = steps[steps["evaluation_loss"].notna()]
    columns = {
        "seconds": ("training_clock", "max"),
        "tokens": ("tokens", "sum"),
        "bytes": ("payload_bytes", "mean"),
        "loss": ("evaluation_loss", "first"),
    }
    return evaluated.groupby(["run", "step"], as_index=False).agg(**columns)


def buckets_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each run and time bucket: mean seconds over workers; `other` is what no bucket explains."""
    rows = []
    for index, run in enumerate(runs):
        explained = {name: run.result.seconds.get(name, 0.0) for name in BUCKETS}
        other = max(0.0, run.result.wall_seconds - sum(run.result.seconds.values()))
        rows += [
            {"run": index, "bucket": name, "seconds": value} for name, value in {**explained, "other": other}.items()
        ]
    return pd.DataFrame(rows)


def memory_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each run and component of persistent memory: counted and predicted bytes."""
    rows = []
    for index, run in enumerate(runs):
        counted, predicted = run.result.memory_bytes, run.result.predicted_memory_bytes
        for name in dict.fromkeys([*counted, *predicted]):
            rows.append(
                {"run": index, "component": name, "bytes": counted.get(name, 0), "predicted": predicted.get(name)}
            )
    return pd.DataFrame(rows, columns=["run", "component", "bytes", "predicted"])


def links_frame(runs: Sequence[Stored]) -> pd.DataFrame:
    """One row for each run, probe (before, after) and directed pair."""
    rows = []
    for index, run in enumerate(runs):
        for when, report in run.links.items():
            for link in report.links:
                fields = {name: getattr(link, name) for name in type(link).model_fields}
                rows.append({"run": index, "when": when, **fields})
    columns = ["run", "when", "source", "target", "rtt_ms_asked", "rtt_ms", "rate_mbit_asked"]
    columns += ["goodput_mbit_expected", "goodput_mbit", "loss_asked", "loss", "passed"]
    return pd.DataFrame(rows, columns=columns)


def all_steps(collection: Collection) -> pd.DataFrame:
    """The tidy frame of all steps with the names of their runs, for export."""
    runs = runs_frame(collection.runs)
    names = runs[["run", "group", "label", "algorithm", "topology", "seed", "valid", "directory"]]
    return names.merge(steps_frame(collection.runs), on="run")
