"""A node of a running network, and the programs that run in it. In the runner process."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from netsim.emulated.agent_client import AgentClient, wait
from netsim.emulated.node.requests import (
    Counters,
    PollProgram,
    ProgramStatus,
    ReadCounters,
    ReadCrossBytes,
    SignalProgram,
    StartCapture,
    StartProgram,
    WaitForProgram,
)
from netsim.emulated.owner import VARIABLE, Owner
from netsim.emulated.plan import NodePlan
from netsim.emulated.program_output import logged_to
from netsim.errors import LonghaulError


class NodeProcess:
    """A program that runs in a node. Its status is an exit code, or minus the signal that ended it.

    stopped: whether it stood still (SIGSTOP) when it was polled last.
    """

    def __init__(self, link: AgentClient, program: int) -> None:
        self._link, self._program = link, program
        self._status: int | None = None
        self.stopped = False

    def poll(self) -> int | None:
        """The status, or None while it runs. A program whose node is gone was killed with it."""
        if self._status is None:
            self._settle(self._polled)
        return self._status

    def _polled(self) -> int | None:
        found = self._link.call(PollProgram(self._program))
        self.stopped = found.stopped
        return found.status

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        if self._status is None:
            future = self._link.request(WaitForProgram(self._program))
            self._settle(lambda: future.result(timeout).status)
        assert self._status is not None
        return self._status

    def on_end(self, call: Callable[[int], None]) -> None:
        """Calls `call` with the status when the program has ended, in another thread."""

        def ended(answer: Future[ProgramStatus]) -> None:
            self._settle(lambda: answer.result().status)
            assert self._status is not None
            call(self._status)

        self._link.request(WaitForProgram(self._program)).add_done_callback(ended)

    def signal(self, number: int) -> None:
        """To the program and all that it started."""
        if not self._link.ended:
            self._link.call(SignalProgram(self._program, int(number)))

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _settle(self, status: Callable[[], int | None]) -> None:
        try:
            self._status = status()
        except LonghaulError:
            if not self._link.ended:
                raise
            self._status = -signal.SIGKILL


class Node:
    """One site's place in the network."""

    def __init__(
        self,
        link: AgentClient,
        plan: NodePlan,
        owner: Owner,
        directory: Path,
        user: int | None,
        raw_sockets: bool,
    ) -> None:
        self.user = user  # that its programs run as; None: this process's own
        self.site, self.wan_address, self.mgmt_address = plan.site, plan.address, plan.mgmt_address
        self._link, self._owner, self._directory, self._raw_sockets = link, owner, directory, raw_sockets

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, directory: Path | None = None
    ) -> NodeProcess:
        """Starts a program without powers over the network; its output is appended to `log`.

        directory: where it starts; by default that of the network. Raises HostError if it cannot be started, or if
        `log` is no file of its own.
        """
        with logged_to(log.absolute(), self.user) as descriptors:
            return self.attach(argv, env, descriptors, directory)

    def attach(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        descriptors: tuple[int, int, int],
        directory: Path | None = None,
        *,
        terminal: bool = False,
    ) -> NodeProcess:
        """The same with open files as its standard input, output and error. terminal: the input is one."""
        marked = {**env, VARIABLE: str(self._owner)}
        request = StartProgram(tuple(argv), marked, str(directory or self._directory), terminal, self._raw_sockets)
        return NodeProcess(self._link, wait([self._link.request(request, descriptors)])[0].program)

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end, like `subprocess.run` with its output, both kinds, as text in `stdout`.

        env: by default this process's own. timeout: seconds, after which it is killed and TimeoutError raised.
        """
        with tempfile.TemporaryFile() as output, Path(os.devnull).open("rb") as null:
            ends = null.fileno(), output.fileno(), output.fileno()
            process = self.attach(argv, os.environ if env is None else env, ends)
            try:
                status = process.wait(timeout)
            except BaseException:
                process.kill()
                raise
            output.seek(0)
            return subprocess.CompletedProcess(list(argv), status, output.read().decode(errors="replace"))

    def capture(self, output: int, kept: int = 65535) -> NodeProcess:
        """Writes what passes wan0 to the open file `output` in pcap form, until it is killed or nobody reads.

        kept: bytes of each packet, at most. In a container it needs a network opened with `raw_sockets`.
        """
        with Path(os.devnull).open("r+b") as null:
            request = self._link.request(StartCapture(kept), (null.fileno(), output, null.fileno()))
            return NodeProcess(self._link, wait([request])[0].program)

    def counters(self) -> Counters:
        """Since the node was made. Cross-traffic of a timeline is left out of what was sent."""
        counting, crossing = self._link.request(ReadCounters()), self._link.request(ReadCrossBytes())
        counted = wait([counting])[0]
        sent = counted.tx_bytes - wait([crossing])[0].bytes
        return Counters(sent, counted.rx_bytes, counted.tx_packets, counted.rx_packets)
