"""New lines of a log that another process appends to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness.records.files import open_to_read
from netsim.errors import InputError

MOST_AT_ONCE = 16 * 2**20  # bytes read by one call; the rest follows with the next


class LogFollower:
    """Reads a JSON-lines file on from where the last call ended; a file that was cut or replaced is read anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = -1

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether what earlier calls returned no longer holds, and the new whole lines; others are passed over."""
        try:
            with open_to_read(self._path) as file:
                found = os.fstat(file.fileno())
                anew = self._inode not in (-1, found.st_ino) or found.st_size < self._offset
                if anew:
                    self._offset = 0
                self._inode = found.st_ino
                file.seek(self._offset)
                data = file.read(MOST_AT_ONCE)
        except (OSError, InputError):
            anew, self._offset, self._inode = self._offset > 0, 0, -1
            return anew, []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return anew, [entry for line in whole.splitlines() if (entry := _object(line)) is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
