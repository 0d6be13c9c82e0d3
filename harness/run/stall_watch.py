"""Notices trainers that are stopped without being dead (SIGSTOP, a frozen cgroup, a hung disk). In the runner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness.records.files import remove
from harness.records.layout import RunDirectory
from harness.records.logs import read_worker_log
from harness.spec.faults import Fault

STALL_SECONDS = 20.0  # without a sign of life; a trainer gives one every second
STALL_START_SECONDS = 120.0  # for a trainer that is started again to give its first


class StallWatch:
    """When each trainer last showed a sign of life, and whether it is declared to be silent."""

    def __init__(self, files: RunDirectory, faults: Sequence[Fault]) -> None:
        self._files, self._faults = files, faults
        self._beat: dict[int, tuple[float, float]] = {}  # mtime of the heartbeat, and when it was seen to change
        self._frozen: set[int] = set()  # by the timeline

    def launched(self, rank: int) -> None:
        """The trainer of `rank` is about to be started."""
        remove(self._files.worker(rank).heartbeat)
        self._beat[rank] = 0.0, time.monotonic() + STALL_START_SECONDS - STALL_SECONDS

    def freeze(self, rank: int, frozen: bool) -> None:
        """The timeline has paused or resumed the site."""
        self._frozen.add(rank) if frozen else self._frozen.discard(rank)
        self._beat[rank] = self._beat[rank][0], time.monotonic()

    def silent_seconds(self, rank: int) -> float:
        """For how long `rank` has been silent beyond what is declared."""
        try:
            modified = self._files.worker(rank).heartbeat.lstat().st_mtime
        except OSError:
            modified = 0.0
        known, since = self._beat[rank]
        if modified != known:
            self._beat[rank] = modified, time.monotonic()
            return 0.0
        silent = time.monotonic() - since
        if silent <= STALL_SECONDS:
            return silent
        return 0.0 if rank in self._frozen else silent - self._declared_pause(rank)

    def _declared_pause(self, rank: int) -> float:
        """How long the pause lasts in which the suite's faults have put the trainer; 0 if they have not."""
        last: dict[str, Any] = next(reversed(read_worker_log(self._files.worker(rank).worker_log)), {})
        return (self._faults[last["fault"]].lasts or 0.0) if last.get("kind") == "pause" else 0.0
