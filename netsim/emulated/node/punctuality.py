"""Whether a delay daemon keeps up with its packets: what it counts of itself, and what the kernel dropped before it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import process_time

LATE = 0.02  # seconds behind, as much as the gate allows the latest of a hundred echoes
SLOT = 0.1  # seconds
_KERNEL = Path("/proc/net/netfilter/nfnetlink_queue")


class Punctuality:
    """Slots of time in which packets were handled, and those in which the daemon was late.

    A moment's stall of the host makes one or two slots late, more packets than it can handle make all of them late.
    """

    def __init__(self) -> None:
        self.packets = self.slots = self.late_slots = 0
        self.most_behind = 0.0
        self._slot, self._late = -1, False

    def count(self, packets: int, behind: float, now: float) -> None:
        """packets: read now. behind: seconds by which a release was late, or for which packets have waited unread."""
        self.packets += packets
        slot = int(now / SLOT)
        if slot != self._slot:
            self._slot, self._late = slot, False
            self.slots += 1
        if behind > LATE and not self._late:
            self._late = True
            self.late_slots += 1
        self.most_behind = max(self.most_behind, behind)

    def to_json(self) -> dict[str, float]:
        return {
            "packets": self.packets,
            "slots": self.slots,
            "late_slots": self.late_slots,
            "most_behind": self.most_behind,
            "processor_seconds": process_time(),
        }


class Backlog:
    """For how long packets may have waited to be read: since there was none."""

    def __init__(self) -> None:
        self._since, self._empty = 0.0, True

    def waited(self, entered: float, woke: float, *, waiting: bool) -> None:
        """The daemon waited for packets from `entered` to `woke`. waiting: whether there are any now."""
        if not waiting or (self._empty and woke - entered > 1e-4):
            self._since = woke

    def read(self, now: float, *, all_of_them: bool) -> float:
        """Packets were read. Returns the seconds that the first of them may have waited."""
        behind = now - self._since
        self._empty = all_of_them
        if all_of_them:
            self._since = now
        return behind


def overruns() -> dict[int, int]:
    """Packets that the kernel dropped since a queue or the daemon's socket was full, by queue."""
    return read_overruns(_KERNEL.read_text().splitlines()) if _KERNEL.exists() else {}


def read_overruns(lines: Iterable[str]) -> dict[int, int]:
    """The same from the lines of the kernel's table."""
    # number, port, waiting, copy mode, copy range, dropped by the queue, by the socket, last packet, 1
    return {int(words[0]): int(words[5]) + int(words[6]) for line in lines if len(words := line.split()) >= 8}
