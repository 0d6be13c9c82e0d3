"""TensorBoard event files, written while a suite runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.live.run_writers import RunWriters, safe_name, scalars
from reports.live.status import Point

_OURS = "events.out.tfevents.*.longhaul"


class EventFiles(RunWriters):
    """One log directory per run under `folder`: loss, held-out loss, bytes sent, of worker 0, at its step and clock.

    A new start writes every step again and removes the files that an earlier one left, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda name, _: _EventFile(folder / safe_name(name)))


class _EventFile:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob(_OURS):
            old.unlink()
        self._writer: Any = SummaryWriter(log_dir=str(folder), filename_suffix=".longhaul")

    def add(self, point: Point) -> None:
        for tag, value in scalars(point).items():
            self._writer.add_scalar(tag, value, point.step, walltime=point.clock)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
