"""The node agent: one process per node, the same on every substrate, under the control of the runner.

It shapes the node's links, supervises the delay daemon and the prober, starts the trainer and reports counters. It
answers the requests of `node.requests` over a Unix-domain socket and ends when the runner does. Only the standard
library and the plain-data modules of netsim are imported: the agent must be ready in milliseconds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netsim.emulated.node import delay, devices
from netsim.emulated.node.prober import Prober
from netsim.emulated.node.processes import end_group, fork, is_stopped, launch, start_privileged
from netsim.emulated.node.punctuality import overruns
from netsim.emulated.node.realtime import AGENT, set_process_name
from netsim.emulated.node.requests import (
    AgentAnswer,
    CheckHealth,
    Counters,
    Done,
    HelperGreeting,
    Json,
    Mismatches,
    NameInterfaces,
    NodeFacts,
    NodeRequest,
    NodeTraffic,
    PollProgram,
    ProbeRequest,
    ProgramStatus,
    ReadCounters,
    ReadFacts,
    ReadTraffic,
    Reshape,
    Shape,
    Shaped,
    SignalAllPrograms,
    Signalled,
    SignalProgram,
    StartCapture,
    Started,
    StartProgram,
    WaitForProgram,
    read_request,
)
from netsim.emulated.node.tc import minor
from netsim.emulated.owner import TOKEN_VARIABLE
from netsim.emulated.plan import NodePlan
from netsim.errors import LonghaulError

HELPER_SECONDS = 10.0  # for the delay daemon or the prober to answer, below what the runner grants the agent


class Helper:
    """A forked child that answers JSON lines with JSON lines."""

    def __init__(self, name: str, number: int, link: socket.socket) -> None:
        self.name, self.number, self.link = name, number, link
        link.settimeout(HELPER_SECONDS)  # a stopped helper must not stop the agent
        self.state: int | None = None  # the status it ended with
        self.ended = False
        self._pending = b""
        self.greeting = HelperGreeting(name=name, **self.answer())

    def tell(self, question: object) -> None:
        try:
            self.link.sendall(json.dumps(question).encode() + b"\n")
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._gone() from None

    def ask(self, question: object) -> dict[str, Any]:
        self.tell(question)
        return self.answer()

    def lines(self) -> list[bytes]:
        """What has come, at least something of a line."""
        try:
            received = self.link.recv(1 << 20)
        except TimeoutError:
            raise self._silent() from None
        if not received:
            raise self._gone()
        *lines, self._pending = (self._pending + received).split(b"\n")
        return lines

    def answer(self) -> dict[str, Any]:
        while not (lines := self.lines()):
            pass
        found: dict[str, Any] = json.loads(lines[0])
        if "error" in found:
            raise LonghaulError(f"the {self.name}: {found['error']}")
        return found

    def _gone(self) -> LonghaulError:
        return LonghaulError(f"the {self.name} of this node has ended")

    def _silent(self) -> LonghaulError:
        return LonghaulError(f"the {self.name} of this node has not answered for {HELPER_SECONDS:g} s: it is stopped")


class Agent:
    """Answers one request after another; `wait` and probes are answered when they are done."""

    def __init__(self, link: socket.socket, user: int | None) -> None:
        self._link, self._user = link, user
        self._plan: NodePlan | None = None
        self._helpers: dict[str, Helper] = {}
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self._waiting: list[tuple[int, int]] = []  # request, program
        self._descriptors: deque[int] = deque()  # that came with requests which have yet to be read

    def serve(self) -> None:
        """Until the runner closes the connection."""
        wake, waker = socket.socketpair()
        for one in (wake, waker):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        pending = b""
        while True:
            own = [self._link.fileno(), wake.fileno()]
            prober = self._helpers.get("prober")
            probing = [prober.link.fileno()] if prober is not None and not prober.ended else []
            ready, _, _ = select.select([*own, *probing], [], [])
            if own[1] in ready:
                wake.recv(4096)
                self._reap()
            if set(probing) & set(ready):
                self._relay()
            if own[0] in ready:
                received, descriptors, *_ = socket.recv_fds(self._link, 1 << 20, 64, socket.MSG_CMSG_CLOEXEC)
                self._descriptors.extend(descriptors)
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))

    def end(self) -> None:
        signal.set_wakeup_fd(-1)
        for program in self._programs.values():
            end_group(program, signal.SIGKILL)

    def _handle(self, data: Json) -> None:
        number = data["id"]
        try:
            answer = self._answer(*read_request(data))
        except Exception as error:  # the runner decides what a failure means, so it must get every one
            if not isinstance(error, LonghaulError | OSError):
                traceback.print_exc()
            self._send({"id": number, "error": str(error) or type(error).__name__})
            return
        if answer is not None:
            self._reply(number, answer)

    def _answer(self, number: int, request: NodeRequest | ProbeRequest) -> AgentAnswer | None:
        """None: the answer follows later."""
        match request:
            case NameInterfaces(wan=wan, mgmt=mgmt):
                devices.adopt(mgmt, wan)
                return Done()
            case Shape(plan=plan, pin=pin):
                return self._shape(plan, pin)
            case Reshape(plan=plan):
                return self._reshape(plan)
            case CheckHealth():
                return self._health()
            case ReadFacts():
                return self._facts()
            case ReadCounters():
                assert self._plan is not None
                return Counters(**devices.counters(self._plan))
            case ReadTraffic():
                return self._traffic()
            case StartProgram():
                return self._start(request)
            case StartCapture(kept=kept):
                return self._capture(kept)
            case PollProgram(program=program):
                status = self._programs[program].poll()
                return ProgramStatus(status, stopped=status is None and is_stopped(program))
            case WaitForProgram(program=program):
                return self._wait(number, program)
            case SignalProgram(program=program, signal=sent):
                if self._programs[program].poll() is None:
                    end_group(self._programs[program], sent)
                return Done()
            case SignalAllPrograms(signal=sent):
                return self._signal_all(sent)
            case _:
                # The prober answers when the probe is over; `_relay` passes the answer on.
                self._helpers["prober"].tell({"id": number, **request.to_json()})
                return None

    def _reply(self, number: int, answer: AgentAnswer) -> None:
        self._send({"id": number, **answer.to_json()})

    def _send(self, message: Json) -> None:
        self._link.sendall(json.dumps(message).encode() + b"\n")

    # --- the network --------------------------------------------------------------------------------------------------

    def _shape(self, plan: NodePlan, pin: bool) -> Shaped:
        """Sets up everything. pin: this namespace's kernel settings are ours to write."""
        self._plan = plan
        if pin:
            devices.set_sysctls(plan.sysctls)
            devices.allow_echoes()
        devices.shape(plan)
        if plan.engine == "nfqueue" and plan.peers:
            queues = [(minor(index), peer.arrival) for index, peer in enumerate(plan.peers)]
            self._fork("delay daemon", lambda link: delay.serve(queues, plan.copies, link))
        self._fork("prober", lambda link: Prober(plan.address).serve(link))
        return Shaped(tuple(devices.mismatches(plan)), tuple(helper.greeting for helper in self._all()))

    def _reshape(self, plan: NodePlan) -> Done:
        self._plan = plan
        devices.reshape(plan)
        if "delay daemon" in self._helpers:
            changes = [[minor(index), asdict(peer.arrival)] for index, peer in enumerate(plan.peers)]
            self._helpers["delay daemon"].ask(changes)
        return Done()

    def _health(self) -> Mismatches:
        self._reap()
        assert self._plan is not None
        found = devices.mismatches(self._plan)
        for helper in self._all():
            if helper.state is not None:
                found.append(f"{self._plan.site}: the {helper.name} has ended (status {helper.state})")
            elif is_stopped(helper.number):
                found.append(f"{self._plan.site}: the {helper.name} is stopped, and with it what it has to do")
        return Mismatches(tuple(found))

    def _facts(self) -> NodeFacts:
        assert self._plan is not None
        classes, qdiscs = devices.read_back(self._plan)
        settings = {key: Path("/proc/sys", *key.split(".")) for key in self._plan.sysctls}
        return NodeFacts(
            classes=[f"{device}: {line}" for device, line in classes],
            qdiscs=[{"dev": device, **entry} for device, entry in qdiscs],
            offloads=devices.offloads(),
            mtu=self._plan.mtu,
            sysctls={
                "net.ipv4.tcp_congestion_control": devices.congestion_control(),
                **{key: path.read_text().strip() for key, path in settings.items() if path.exists()},
            },
            priorities={helper.name: _priority(helper.number) for helper in self._all()},
        )

    def _traffic(self) -> NodeTraffic:
        assert self._plan is not None
        out, down, lost = devices.traffic(self._plan)
        overrun, daemon = {}, {}
        if "delay daemon" in self._helpers:
            sites = {minor(index): peer.site for index, peer in enumerate(self._plan.peers)}
            counted, dropped = self._helpers["delay daemon"].ask([]), overruns()
            lost = {site: counted["lost"][str(queue)] for queue, site in sites.items()}
            overrun = {site: dropped.get(queue, 0) for queue, site in sites.items()}
            daemon = counted["daemon"]
        return NodeTraffic(at=time.monotonic(), out=out, down=down, lost=lost, overrun=overrun, daemon=daemon)

    def _all(self) -> list[Helper]:
        return list(self._helpers.values())

    def _fork(self, name: str, work: Any) -> None:
        others = [helper.link for helper in self._all()]
        self._helpers[name] = Helper(name, *fork(name, work, close=[self._link, *others]))

    def _relay(self) -> None:
        try:
            for line in self._helpers["prober"].lines():
                self._link.sendall(line + b"\n")
        except LonghaulError:
            self._helpers["prober"].ended = True

    # --- programs -----------------------------------------------------------------------------------------------------

    def _start(self, request: StartProgram) -> Started:
        with self._three_descriptors() as descriptors:
            directory = Path(request.directory)
            program = launch(
                request.argv,
                request.env,
                descriptors,
                self._user,
                directory,
                terminal=request.terminal,
                raw_sockets=request.raw_sockets,
            )
        self._programs[program.pid] = program
        return Started(program.pid)

    def _capture(self, kept: int) -> Started:
        argv = [sys.executable, "-S", "-m", "netsim.emulated.node.capture", str(kept)]
        with self._three_descriptors() as descriptors:
            program = start_privileged(argv, os.environ, descriptors)
        self._programs[program.pid] = program
        return Started(program.pid)

    @contextlib.contextmanager
    def _three_descriptors(self) -> Iterator[tuple[int, int, int]]:
        """Those that came with the request; the program has copies of its own afterwards."""
        first, second, third = (self._descriptors.popleft() for _ in range(3))
        try:
            yield first, second, third
        finally:
            for descriptor in (first, second, third):
                os.close(descriptor)

    def _wait(self, number: int, program: int) -> ProgramStatus | None:
        if (status := self._programs[program].poll()) is not None:
            return ProgramStatus(status)
        self._waiting.append((number, program))
        return None

    def _signal_all(self, sent: int) -> Signalled:
        running = tuple(number for number, program in self._programs.items() if program.poll() is None)
        for number in running:
            end_group(self._programs[number], sent)
        return Signalled(running)

    def _reap(self) -> None:
        for program in self._programs.values():
            program.poll()
        for number, pid in [*self._waiting]:
            if (status := self._programs[pid].returncode) is not None:
                self._waiting.remove((number, pid))
                self._reply(number, ProgramStatus(status))
        known = {program.pid for program in self._programs.values() if program.returncode is None}
        while True:
            # Whatever else has ended: helpers, probes, and orphans when this is the first process of a container.
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in known:
                return
            _, status = os.waitpid(ended.si_pid, 0)
            for helper in self._all():
                if helper.number == ended.si_pid:
                    helper.state = os.waitstatus_to_exitcode(status)


def _priority(process: int) -> str:
    """How urgently the kernel serves a process, as it is now."""
    try:
        if os.sched_getscheduler(process) == os.SCHED_FIFO:
            return f"fifo {os.sched_getparam(process).sched_priority}"
        return f"nice {os.getpriority(os.PRIO_PROCESS, process)}"
    except ProcessLookupError:
        return "ended"


def main() -> None:
    """Arguments: socket path, node number, and the user number that programs run as (or -). The token: environment."""
    path, node, user = sys.argv[1:4]
    token = os.environ.pop(TOKEN_VARIABLE)
    set_process_name("longhaul-agent")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, AGENT)  # links must change in time, however busy the programs are
    link = socket.socket(socket.AF_UNIX)
    link.connect(base64.b64decode(path).decode())
    greeting = {"node": int(node), "token": token, "pid": os.getpid()}
    link.sendall(json.dumps(greeting).encode() + b"\n")
    agent = Agent(link, None if user == "-" else int(user))
    try:
        agent.serve()
    except (ConnectionError, BrokenPipeError):
        pass  # the runner is gone
    finally:
        agent.end()


if __name__ == "__main__":
    main()
