"""The append-only logs of a run: events.jsonl of the runner, happened.jsonl of each worker."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.records.layout import WorkerDirectory


class WorkerLog:
    """What happened to a worker and what it did about it, in its directory; `when` is seconds since the epoch."""

    def __init__(self, rank_directory: Path) -> None:
        self._path = WorkerDirectory(rank_directory).worker_log

    def add(self, kind: str, **facts: Any) -> None:
        line = {"when": round(time.time(), 4), "kind": kind, **facts}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> list[dict[str, Any]]:
        return read_worker_log(self._path)


def read_worker_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a worker's log; one that was being written when its process was killed is left out."""
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


class Events:
    """events.jsonl: what happened when, in seconds since the cell began."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._begin, self._zero = time.monotonic(), time.time()

    def add(self, kind: str, **facts: Any) -> None:
        self._write(time.monotonic() - self._begin, kind, facts)

    def add_at(self, when: float, kind: str, **facts: Any) -> None:
        """Something that happened earlier, at `when` seconds since the epoch."""
        self._write(when - self._zero, kind, facts)

    def _write(self, at: float, kind: str, facts: dict[str, Any]) -> None:
        line = {"at": round(at, 3), "kind": kind, **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been reported by what could not be written
            self._file.close()
