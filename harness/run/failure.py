"""The record of a run that failed: the reason, and the last lines of its workers. In the runner."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.records.layout import RunDirectory
from harness.records.logs import text_lines
from harness.records.run_record import write_json

TAIL = 20  # lines of each worker's log
LEAST_FREE = 1 << 16  # bytes of a disk, below which it is full


def record_failure(files: RunDirectory, reason: str) -> None:
    """Writes failure.json."""
    tails = {worker.path.name: text_lines(worker.log)[-TAIL:] for worker in files.workers()}
    write_json(files.failure, {"reason": reason, "log": tails})


def how_it_ended(status: int, said: Sequence[str], log: Path) -> str:
    """What became of a program, to follow its name. status: exit code, or minus a signal; said: lines of its output,
    which `log` holds.
    """
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended (exit {status}): {said[-1] if said else _why_silent(log)}"


def _why_silent(log: Path) -> str:
    with suppress(OSError):
        if shutil.disk_usage(log.parent).free < LEAST_FREE:
            return f"its output did not fit any more: no space left on device: {log}"
    return "it left no message"
