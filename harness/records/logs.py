"""The append-only logs of a run: events.jsonl of the runner, happened.jsonl of each worker."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.records.files import open_to_read
from harness.records.layout import WorkerDirectory
from netsim.errors import InputError


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
    """The whole lines of a worker's log, each with its `when` and `kind`; see `whole_lines`."""
    entries = read_entries(path)
    for entry in entries:
        when = entry.get("when")
        if not isinstance(when, int | float) or not 0 <= when < 1e11 or not isinstance(entry.get("kind"), str):
            raise InputError(str(path), "", entry, "lines with `when`, seconds since the epoch, and a `kind`")
    return entries


def read_entries(path: Path) -> list[dict[str, Any]]:
    """What each line of a log says; see `whole_lines`."""
    return [entry for _, entry in whole_lines(path)]


def whole_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each line of a log with what it says; without the last ones that are no JSON: their process was killed in them.

    No file is an empty log. InputError for a line that is something else than a mapping, and for what is no file.
    """
    try:
        with open_to_read(path) as file:
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict):
            raise InputError(str(path), f"line {number}", entry, "a mapping of fields")
        found.append((line, entry))
    return found


def text_lines(path: Path, user: int | None = None) -> list[str]:
    """The lines of a program's output that are not blank; none where there is no file, or something else.

    user: that the program runs as, where its output is in a folder of somebody else.
    """
    try:
        with open_to_read(path, user) as file:
            text = file.read().decode(errors="replace")
    except (OSError, InputError):
        return []
    return [line for line in text.splitlines() if line.strip()]


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
