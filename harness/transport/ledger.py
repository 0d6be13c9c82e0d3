"""The ledger: payload bytes that this rank handed to the network, exact, per transfer.

Summed over the ranks it equals `Plan.payload_bytes`. Headers, hellos and whatever TCP adds are not payload; they are
the difference between the ledger and the kernel's counters of `wan0`.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TextIO

from netsim.errors import HostError


@dataclass(frozen=True)
class Entry:
    """One transfer carried out by this rank. Times are monotonic seconds of this host.

    started: when the first byte could leave; seconds: from then until this rank had the result and had handed over
    all it owed; cold: whether a connection it needed had never carried a transfer before (its windows were closed).
    """

    step: int
    transfer: str
    phase: int
    algorithm: str
    members: int
    payload_bytes: int
    started: float
    seconds: float
    cold: bool


class Ledger:
    """Counts of payload bytes by (step, transfer name); finished transfers as JSON lines to `stream`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._bytes: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._total = 0
        self.entries: list[Entry] = []
        self.header_bytes = 0

    def count(self, step: int, name: str, payload: int, header: int) -> None:
        with self._lock:
            self._bytes[step, name] += payload
            self._total += payload
            self.header_bytes += header

    def finish(self, entry: Entry) -> None:
        """HostError if the line cannot be written: as an OSError it would be taken for a peer's connection's."""
        with self._lock:
            self.entries.append(entry)
            if self._stream is None:
                return
            try:
                self._stream.write(json.dumps(asdict(entry)) + "\n")
                self._stream.flush()
            except OSError as error:
                raise HostError(f"the ledger cannot be written: {error.strerror}") from error

    @property
    def total(self) -> int:
        """Payload bytes so far, all transfers together."""
        return self._total

    def by_transfer(self) -> Mapping[tuple[int, str], int]:
        """Payload bytes by (step, transfer name)."""
        with self._lock:
            return dict(self._bytes)
