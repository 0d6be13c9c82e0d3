"""A sign of life every second, by which the runner tells a busy trainer from a stopped one. In the trainer process."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

BEAT_SECONDS = 1.0


def start_heartbeat(path: Path) -> None:
    """Touch `path` every `BEAT_SECONDS` for as long as this process runs."""

    def beat() -> None:
        while True:
            with suppress(OSError):  # a full disk is reported by what could not be written
                path.touch()
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
