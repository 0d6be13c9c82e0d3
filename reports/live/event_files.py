"""TensorBoard event files, written while a suite runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netsim.errors import HostError
from reports.live.cell_follower import CellFollower

_OURS = "events.out.tfevents.*.longhaul"


class EventFiles:
    """One log directory per run under `folder`: loss, held-out loss, bytes sent, of worker 0, at its step and clock.

    A new start writes every step again and removes the files that an earlier one left, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise HostError("TensorBoard files need tensorboard: pip install 'longhaul-bench[tensorboard]'") from None
        self._new_writer: Any = SummaryWriter
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._written: dict[str, int] = {}  # steps, by run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self._writers.values():
            writer.close()

    def write(self, runs: Mapping[str, CellFollower]) -> None:
        """What was logged since the last call. A run that was begun anew starts a new file."""
        for name, run in runs.items():
            points = list(run.points)
            done = self._written.get(name, 0)
            if len(points) < done:
                self._writers.pop(name).close()
                done = 0
            if len(points) == done:
                continue
            writer = self._writers.get(name) or self._writers.setdefault(name, self._open(name))
            for point in points[done:]:
                values = {"loss": point.loss, "evaluation_loss": point.evaluation_loss, "payload_bytes": point.bytes}
                for tag, value in values.items():
                    if value is not None:
                        writer.add_scalar(tag, value, point.step, walltime=point.clock)
            writer.flush()
            self._written[name] = len(points)

    def _open(self, name: str) -> Any:
        folder = self._folder / re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".")[:200]
        for old in folder.glob(_OURS):
            old.unlink()
        return self._new_writer(log_dir=str(folder), filename_suffix=".longhaul")
