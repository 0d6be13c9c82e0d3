"""The connections of one generation: a WAN and a control exchange among its members. In the trainer process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO, cast

from harness.elastic.partial_exchange import PartialExchange
from harness.elastic.views import View
from harness.spec.resolved import ResolvedRun
from harness.transport.ledger import Ledger
from harness.transport.wan_exchange import WanExchange
from harness.worker.connect import connect_control, connect_wan
from harness.worker.job import WAN_PORT, Job
from netsim.traffic import Transfer

PROBE_SECONDS = 2.0  # for a connection to be answered across the WAN


class Connections:
    """Reconnected for every generation. The method's worker keeps the two partial exchanges throughout.

    wan, control: of the present generation.
    """

    wan: WanExchange
    control: WanExchange

    def __init__(self, run: ResolvedRun, job: Job, ready_at: Callable[[Transfer], float], ledger: TextIO) -> None:
        self._topology, self._job, self._ready_at, self._ledger_file = run.topology, job, ready_at, ledger
        self.method_exchange = PartialExchange(job.rank, job.world, run.method.scale)
        self.control_exchange = PartialExchange(job.rank, job.world, lambda t, p: len(t.members) / len(p))
        self._open = ExitStack()
        self._ledgers: list[Ledger] = []

    def connect(self, view: View) -> None:
        """Connect the view's members. Raises PeerError naming those that could not be reached."""
        self.close()
        tagged = cast(TextIO, _GenerationTag(self._ledger_file, view.generation))
        self.wan = self._open.enter_context(
            connect_wan(self._job, self._topology, self._ready_at, tagged, view.generation, view.members)
        )
        self.control = self._open.enter_context(connect_control(self._job, view.generation, view.members))
        self._ledgers.append(self.wan.ledger)
        self.method_exchange.become(self.wan, view.members)
        self.control_exchange.become(self.control, view.members)

    def close(self) -> None:
        self._open.close()

    @property
    def payload_bytes(self) -> int:
        """Sent over the WAN by this process, in all generations."""
        return sum(ledger.total for ledger in self._ledgers)


class _GenerationTag:
    """Writes the ledger's lines with the generation that they belong to."""

    def __init__(self, file: TextIO, generation: int) -> None:
        self._file, self._generation = file, generation

    def write(self, line: str) -> int:
        return self._file.write(line.replace("{", f'{{"generation": {self._generation}, ', 1))

    def flush(self) -> None:
        self._file.flush()


def reachable(job: Job, members: tuple[int, ...]) -> bool:
    """Whether the WAN carries a connection to each of the members; a refusal is an answer, too.

    Members refuse a stranger, and one that is about to be replaced by the next generation's exchange may not listen for
    a moment.
    """
    for rank in set(members) - {job.rank}:
        try:
            place = (job.wan_addresses[rank], WAN_PORT)
            socket.create_connection(place, PROBE_SECONDS, (job.wan_addresses[job.rank], 0)).close()
        except ConnectionError:
            continue
        except OSError:
            return False
    return True
