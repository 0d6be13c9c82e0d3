"""Fault injection inside the trainer process: crashes, pauses, stragglers and damaged payloads, by local step."""

from __future__ import annotations

import os
import signal
import subprocess

from harness.records.logs import WorkerLog
from harness.spec.faults import Fault
from harness.spec.run_spec import RunSpec
from harness.transport.frames import Kind, pack_header
from harness.transport.wan_exchange import WanExchange

# A SIGCONT that comes before the SIGSTOP continues nothing: it is sent until the process ($2) no longer is stopped.
CONTINUE = """sleep "$1"
while read -r _ _ state _ < "/proc/$2/stat"; do
  case $state in T|t) kill -CONT "$2"; stopped=yes ;; *) [ "$stopped" ] && exit 0 ;; esac
  sleep 0.02
done"""


class FaultInjector:
    """Injects each fault once per step, however often the step is repeated and by whichever process."""

    def __init__(self, spec: RunSpec, rank: int, log: WorkerLog) -> None:
        self._faults, self._seed = spec.faults, spec.seed
        self._site = list(spec.topology["sites"])[rank]
        self._log = log
        self._patience = spec.network.timeout_seconds / 2
        self._injected = {(entry["fault"], entry["step"]) for entry in log.read() if "fault" in entry}

    def inject(self, step: int, exchanges: tuple[WanExchange, WanExchange]) -> float:
        """Every fault that is due at the start of `step`. Returns the factor by which the step is to take longer.

        exchanges: WAN and control. What was sent for earlier steps arrives before the fault: what the others have of
        this worker then does not depend on the network.
        """
        slowdown = 1.0
        for index, fault in enumerate(self._faults):
            if not fault.happens(index, self._seed, self._site, step):
                continue
            first = (index, step) not in self._injected
            self._injected.add((index, step))
            if first:
                self._log.add(fault.kind, fault=index, step=step, site=self._site)
                if fault.kind != "straggle":
                    for exchange in exchanges:
                        exchange.drain(self._patience)
                self._carry_out(fault, exchanges[0])
            slowdown *= fault.factor or 1.0
        return slowdown

    def _carry_out(self, fault: Fault, wan: WanExchange) -> None:
        if fault.kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == "pause":
            subprocess.Popen(["/bin/sh", "-c", CONTINUE, "sh", str(fault.lasts), str(os.getpid())])
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.kind in ("corrupt", "short"):
            damage(wan, short=fault.kind == "short")


def damage(wan: WanExchange, short: bool) -> None:
    """Send to the first peer what a faulty worker might: a body without its checksum, or less of it than announced."""
    body = b"\x01\x02\x03"
    header = pack_header(Kind.CONTRIBUTION, 0, 0, memoryview(body))
    message = header + (body[:2] if short else b"\x01\x02\x04")
    wan.inject_bytes(next(rank for rank in wan.members if rank != wan.rank), message, hang_up=short)
