"""Notices trainers that are stopped without being dead (SIGSTOP, a frozen cgroup, a hung disk). In the runner."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from harness.records.files import remove
from harness.records.layout import RunDirectory, WorkerId
from harness.records.logs import read_worker_log
from harness.spec.faults import Fault
from netsim.errors import LonghaulError

STALL_SECONDS = 20.0  # without a sign of life; a trainer gives one every second
STALL_START_SECONDS = 120.0  # for a trainer that is started again to give its first


class StoppedPrograms:
    """Programs that stand still, in a stage in which none is declared to."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by name, monotonic

    def check(self, name: str, stopped: bool) -> None:
        """To be called again and again. LonghaulError when `name` has been stopped at every call for STALL_SECONDS."""
        if not stopped:
            self._since.pop(name, None)
        elif time.monotonic() - self._since.setdefault(name, time.monotonic()) > STALL_SECONDS:
            raise LonghaulError(f"{name} has been stopped for {STALL_SECONDS:g} s, and is not declared to be")


class StallWatch:
    """When each trainer last showed a sign of life, and whether it is declared to be silent."""

    def __init__(self, files: RunDirectory, faults: Sequence[Fault]) -> None:
        self._files, self._faults = files, faults
        self._beat: dict[WorkerId, tuple[float, float]] = {}  # mtime of the heartbeat, and when it was seen to change
        self._frozen: set[WorkerId] = set()  # by the timeline

    def launched(self, worker: WorkerId) -> None:
        """Its trainer is about to be started."""
        remove(self._files.worker(*worker).heartbeat)
        self._beat[worker] = 0.0, time.monotonic() + STALL_START_SECONDS - STALL_SECONDS

    def freeze(self, worker: WorkerId, frozen: bool) -> None:
        """The timeline has paused or resumed the site."""
        self._frozen.add(worker) if frozen else self._frozen.discard(worker)
        self._beat[worker] = self._beat[worker][0], time.monotonic()

    def seen(self, worker: WorkerId) -> bool:
        """Whether the trainer has shown a sign of life yet: its program may still be loading."""
        return os.path.lexists(self._files.worker(*worker).heartbeat)

    def silent_seconds(self, worker: WorkerId) -> float:
        """For how long it has been silent beyond what is declared."""
        try:
            modified = self._files.worker(*worker).heartbeat.lstat().st_mtime
        except OSError:
            modified = 0.0
        known, since = self._beat[worker]
        if modified != known:
            self._beat[worker] = modified, time.monotonic()
            return 0.0
        silent = time.monotonic() - since
        if silent <= STALL_SECONDS:
            return silent
        return 0.0 if worker in self._frozen else silent - self._declared_pause(worker)

    def _declared_pause(self, worker: WorkerId) -> float:
        """How long the pause lasts in which the suite's faults have put the trainer; 0 if they have not."""
        last: dict[str, Any] = next(reversed(read_worker_log(self._files.worker(*worker).worker_log)), {})
        return (self._faults[last["fault"]].lasts or 0.0) if last.get("kind") == "pause" else 0.0
