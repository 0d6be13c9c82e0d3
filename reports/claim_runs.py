"""What claims are tested on: a frame of valid runs, with every metric that a claim may name.

Columns: run (its number in the study it comes from), suite, label, topology, seed, stopped_short (it should have ended
at a target loss and did not reach it, so what it took is not what it takes), the metrics in their base units, and the
bytes of each component of memory. The frame can be stored, so that a page of claims is written without its runs, and
grows with every suite that is trained.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from netsim.errors import InputError
from reports.study import Study

# Metric of a claim -> column of the study's runs.
_COLUMNS = {
    "final_loss": "final_loss",
    "final_perplexity": "final_perplexity",
    "time_to_loss": "seconds_to_level",
    "training_time": "training_seconds",
    "communication_time": "communication_seconds",
    "compute_utilisation": "compute_utilisation",
    "payload_bytes": "payload_bytes_per_worker",
    "wire_bytes": "wire_bytes_per_worker",
    "memory_bytes": "memory_bytes",
}
# What methods log of themselves: mean over layers, workers and the second half of the run's steps.
LOGGED = ("routing_entropy", "ghost_share", "subspace_overlap")
_IDENTITY = ["suite", "label", "topology", "seed"]
_MEMORY = "memory/"


def memory_column(component: str) -> str:
    return _MEMORY + component


def memory_components(runs: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix(_MEMORY) for name in runs.columns if str(name).startswith(_MEMORY)]


def claim_runs(study: Study) -> pd.DataFrame:
    """The valid runs of a study."""
    runs = study.runs
    specs = [study.stored[int(run)].spec for run in runs["run"]]
    must_stop = pd.Series([spec.train.stop_at_target for spec in specs], index=runs.index, dtype=bool)
    found = runs[["run", "label", "topology", "seed"]].assign(
        suite=[spec.suite for spec in specs],
        stopped_short=runs["time_to_target_seconds"].isna() & must_stop,
        **{metric: runs[column] for metric, column in _COLUMNS.items()},
    )
    for metric in LOGGED:
        found = found.merge(_logged(study, metric), on="run", how="left")
    memory = study.memory.pivot_table(index="run", columns="component", values="bytes", aggfunc="sum")
    return found.merge(memory.rename(columns=memory_column), left_on="run", right_index=True, how="left")


def _logged(study: Study, metric: str) -> pd.Series:
    found = study.logged(metric)
    last = study.steps.groupby("run")["step"].max()
    late = found[found["step"] > found["run"].map(last) / 2]
    return late.groupby("run")["value"].mean().rename(metric)


def merged(stored: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """Both, the new one where the same cell of the same suite is in both; numbered anew, sorted by suite and label."""
    both = new if stored is None else pd.concat([stored, new], ignore_index=True)
    kept = both.drop_duplicates(_IDENTITY, keep="last").sort_values(_IDENTITY, ignore_index=True)
    return kept.assign(run=kept.index)


def store_claim_runs(runs: pd.DataFrame, path: Path) -> None:
    """One JSON object per line, without what a run does not have."""
    path.write_text("".join(f"{json.dumps(_present(row))}\n" for row in runs.drop(columns="run").to_dict("records")))


def _present(row: dict[Hashable, Any]) -> dict[Hashable, Any]:
    return {key: value for key, value in row.items() if not pd.isna(value)}


def load_claim_runs(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_json(StringIO(path.read_text()), lines=True, precise_float=True)
    except ValueError as error:
        raise InputError(
            str(path), "", str(error), "one JSON object per line, as `longhaul docs claims` stores"
        ) from None
    absent = [name for name in (*_IDENTITY, "stopped_short", *_COLUMNS) if name not in frame.columns]
    if absent:
        raise InputError(str(path), absent[0], "missing", "runs as `longhaul docs claims` stores them")
    return frame.reindex(columns=list(dict.fromkeys([*frame.columns, *LOGGED]))).assign(run=frame.index)
