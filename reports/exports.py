"""Stored runs in the formats of other programs: one tidy Parquet file of all steps, and TensorBoard event files."""

from __future__ import annotations

import re
from pathlib import Path

from netsim.errors import HostError
from reports.frames import all_steps
from reports.records import Collection, Stored

_SKIPPED = {"run", "rank", "step", "clock", "training_clock"}


def write_parquet(collection: Collection, path: Path) -> None:
    """One row for each run, worker and step; units are in the column names."""
    all_steps(collection).to_parquet(path, index=False, compression="zstd")


def write_tensorboard(collection: Collection, folder: Path) -> None:
    """One log directory for each run: every number of its steps, mean over workers, at its training step and clock."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise HostError("TensorBoard files need tensorboard: pip install 'longhaul-bench[tensorboard]'") from None
    for index, run in enumerate(collection.runs):
        steps = all_steps(Collection((run,), (), collection.baselines))
        numbers = steps.select_dtypes("number")
        means = numbers.groupby("step", as_index=False).mean()
        with SummaryWriter(log_dir=str(folder / _name(index, run))) as writer:
            for column in (name for name in means.columns if name not in _SKIPPED and name != "seed"):
                for row in means[["step", "clock", column]].dropna().to_dict("records"):
                    writer.add_scalar(_tag(str(column)), row[column], int(row["step"]), walltime=float(row["clock"]))


def _name(index: int, run: Stored) -> str:
    """A directory name that no record can lead astray."""
    text = f"{run.group}-{run.directory.name}"
    return f"{index:04d}-" + re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:120]


def _tag(column: str) -> str:
    if column.endswith("_seconds"):
        return f"seconds/{column.removesuffix('_seconds')}"
    return column.replace("metric.", "metric/")
