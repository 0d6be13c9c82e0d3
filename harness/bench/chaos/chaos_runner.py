"""The runner of one disturbed run: started, waited for, and ended with all that it started.

As root it gets a numbering of processes of its own (a PID namespace). Runners side by side then take each other for
another container's, whose leftovers are none of their business: none sweeps what another left before it is checked.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from harness.bench.bounds import ORPHAN_SECONDS, TEARDOWN_SECONDS
from harness.bench.run_processes import container_engine, containers_of, networks_of, owned_processes
from netsim.emulated.owner import Owner, runtime_root
from netsim.emulated.substrates.resource_limits import HIERARCHIES, PREFIX, remove_groups
from netsim.errors import LonghaulError

POLL_SECONDS = 0.1
# The first process of the numbering: its end would take with it what a runner has left. A shell reaps while it waits.
FIRST = 'code=$1; shift; "$@"; echo $? >"$code"; while :; do sleep 0.2; done'
_SIGNALLED = {128 + number: -number for number in (signal.SIGKILL, signal.SIGTERM)}


class DisturbedRunner:
    """A started `longhaul run`. pid: its number on this host; owner: what it calls itself; returncode: as of Popen."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, substrate: str) -> None:
        self._substrate, self._code = substrate, folder / "code"
        apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if os.geteuid() == 0 else []
        command = [*apart, "sh", "-c", FIRST, "sh", str(self._code), *arguments]
        with (folder / "said").open("wb") as said, (folder / "complaints").open("wb") as complaints:
            self._first = subprocess.Popen(command, env=environment, stdout=said, stderr=complaints)
        self.returncode: int | None = None
        shell = _only_child(self._first.pid) if apart else self._first.pid
        self.pid = _only_child(shell)
        owner = Owner.of(self.pid)
        if owner is None:
            raise LonghaulError(f"a runner ended at once: {(folder / 'complaints').read_text(errors='replace')}")
        self.owner = owner

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(OSError, ValueError):
                code = int(self._code.read_text())
                self.returncode = _SIGNALLED.get(code, code)
        return self.returncode

    def wait(self, seconds: float) -> int:
        """Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("longhaul run", seconds)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, patience: float | None = None) -> None:
        """Ends what is still there of the run, as Ctrl-C does, and then by SIGKILL.

        patience: seconds until then, by default as long as a teardown may take.
        """
        for number in (signal.SIGTERM, signal.SIGCONT):  # a slow one may stand still just now
            self.send_signal(number)
        try:
            self.wait(TEARDOWN_SECONDS[self._substrate] + ORPHAN_SECONDS if patience is None else patience)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
        left = owned_processes(self.owner)
        for process in psutil.wait_procs(left, timeout=ORPHAN_SECONDS if patience is None else patience)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.poll()
        self._first.kill()
        self._first.wait()
        remove_all_of(self.owner, self._substrate)


def remove_all_of(owner: Owner, substrate: str) -> None:
    """What a runner left that is no process: directories, control groups, containers and networks."""
    for path in runtime_root().glob(f"{owner}.*"):
        shutil.rmtree(path, ignore_errors=True)
    remove_groups(list(HIERARCHIES.glob(f"*/{PREFIX}{owner}*")))
    if substrate == "docker":
        for kind, names in (("container", containers_of(owner)), ("network", networks_of(owner))):
            for name in names:
                container_engine(kind, "rm", "--force", name)


def _only_child(pid: int) -> int:
    """The process that `pid` starts first. LonghaulError if it starts none."""
    children, end = Path(f"/proc/{pid}/task/{pid}/children"), time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        time.sleep(0.01)
    raise LonghaulError("a runner could not be started")
