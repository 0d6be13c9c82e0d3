"""The node agent: one process per node, the same on every substrate, told what to do by its runner.

It shapes the node's links, keeps the delay daemon and the probe server, starts the trainer and reports counters. It
speaks newline-delimited JSON over a Unix-domain socket and ends when the runner does. Only the standard library and the
plain-data modules of netsim are imported: the agent must be ready in milliseconds.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netsim.emulated import delay, devices, probes
from netsim.emulated.plan import NodePlan
from netsim.emulated.priority import call_myself
from netsim.emulated.processes import end_group, fork, launch
from netsim.emulated.shaping import MGMT, WAN, minor
from netsim.errors import LonghaulError


class Helper:
    """A forked child that answers one JSON line per line."""

    def __init__(self, name: str, number: int, link: socket.socket) -> None:
        self.name, self.number, self.link = name, number, link
        self.state: int | None = None
        self._pending = b""
        self.greeting = self.answer()

    def ask(self, question: object) -> dict[str, Any]:
        try:
            self.link.sendall(json.dumps(question).encode() + b"\n")
        except OSError:
            raise LonghaulError(f"the {self.name} of this node has ended") from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        while b"\n" not in self._pending:
            received = self.link.recv(1 << 20)
            if not received:
                raise LonghaulError(f"the {self.name} of this node has ended")
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise LonghaulError(f"the {self.name}: {found['error']}")
        return found

    @property
    def alive(self) -> bool:
        return self.state is None


class Agent:
    """Answers one request after another; `wait` and probes are answered when they are done."""

    def __init__(self, link: socket.socket, user: int | None) -> None:
        self._link, self._user = link, user
        self._plan: NodePlan | None = None
        self._helpers: dict[str, Helper] = {}
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self._senders: dict[int, tuple[socket.socket, int, bytes]] = {}  # by descriptor: link, request, bytes so far
        self._waiting: list[tuple[int, int]] = []  # request, program

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
            ready, _, _ = select.select([*own, *self._senders], [], [])
            if own[1] in ready:
                wake.recv(4096)
                self._reap()
            for descriptor in [one for one in ready if one not in own]:
                self._collect(descriptor)
            if own[0] in ready:
                received = self._link.recv(1 << 20)
                if not received:
                    return
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))

    def end(self) -> None:
        signal.set_wakeup_fd(-1)
        for program in self._programs.values():
            end_group(program, signal.SIGKILL)

    def _handle(self, request: dict[str, Any]) -> None:
        number = request.pop("id")
        try:
            answer = getattr(self, f"do_{request.pop('do')}")(number, **request)
        except Exception as error:  # the runner decides what a failure means, so it must hear of every one
            if not isinstance(error, LonghaulError | OSError):
                traceback.print_exc()
            self._reply(number, {"error": str(error) or type(error).__name__})
            return
        if answer is not None:
            self._reply(number, answer)

    def _reply(self, number: int, answer: dict[str, Any]) -> None:
        self._link.sendall(json.dumps({"id": number, **answer}).encode() + b"\n")

    # --- the network --------------------------------------------------------------------------------------------------

    def do_name(self, _: int, wan: str, mgmt: str) -> dict[str, Any]:
        devices.adopt(mgmt, wan)
        return {}

    def do_shape(self, _: int, plan: dict[str, Any], pin: bool) -> dict[str, Any]:
        """Sets up everything. pin: this namespace's kernel settings are ours to write."""
        self._plan = made = NodePlan.from_json(plan)
        if pin:
            devices.set_sysctls(made.sysctls)
        devices.shape(made)
        if made.engine == "nfqueue" and made.peers:
            queues = [(minor(index), peer.arrival) for index, peer in enumerate(made.peers)]
            self._fork("delay daemon", lambda link: delay.serve(queues, False, link))
        self._fork("probe server", lambda link: probes.Server(made.address).serve(link))
        return {"faults": devices.faults(made), "priorities": {h.name: h.greeting["priority"] for h in self._all()}}

    def do_reshape(self, _: int, plan: dict[str, Any]) -> dict[str, Any]:
        self._plan = made = NodePlan.from_json(plan)
        devices.reshape(made)
        if "delay daemon" in self._helpers:
            changes = [[minor(index), asdict(peer.arrival)] for index, peer in enumerate(made.peers)]
            self._helpers["delay daemon"].ask(changes)
        return {}

    def do_health(self, _: int) -> dict[str, Any]:
        """Everything that would make this node's links other than asked, in words."""
        self._reap()
        assert self._plan is not None
        found = devices.faults(self._plan)
        found += [f"{self._plan.site}: the {h.name} has ended (status {h.state})" for h in self._all() if not h.alive]
        return {"faults": found}

    def do_facts(self, _: int) -> dict[str, Any]:
        """For the record: what the kernel says about this node's links."""
        classes, qdiscs = devices.read_back()
        assert self._plan is not None
        settings = {key: Path("/proc/sys", *key.split(".")) for key in self._plan.sysctls}
        return {
            "classes": [f"{device}: {line}" for device, line in classes],
            "qdiscs": [{"dev": device, **entry} for device, entry in qdiscs],
            "offloads": {name: devices.offload(WAN, name) for name in ("tso", "gso", "gro")},
            "mtu": self._plan.mtu,
            "sysctls": {key: path.read_text().strip() for key, path in settings.items() if path.exists()},
            "priorities": {helper.name: helper.greeting["priority"] for helper in self._all()},
        }

    def do_counters(self, _: int) -> dict[str, Any]:
        return {"wan0": devices.counters(WAN), "mgmt0": devices.counters(MGMT)}

    def _all(self) -> list[Helper]:
        return list(self._helpers.values())

    def _fork(self, name: str, work: Any) -> None:
        others = [helper.link for helper in self._all()]
        self._helpers[name] = Helper(name, *fork(name, work, close=[self._link, *others]))

    # --- probes -------------------------------------------------------------------------------------------------------

    def do_echo(self, number: int, targets: list[str], count: int, interval: float, patience: float) -> None:
        own = self._address()

        def work(link: socket.socket) -> None:
            times = probes.echo_times(own, targets, count, interval, patience)
            link.sendall(json.dumps({"times": times}).encode())

        self._probe(number, work)

    def do_stream(self, number: int, stream: dict[str, Any]) -> None:
        own, asked = self._address(), probes.Stream(**stream)
        self._probe(number, lambda link: link.sendall(json.dumps(probes.send_stream(own, asked)).encode()))

    def do_received(self, _: int, stream: int, over: float, finish: bool) -> dict[str, Any]:
        return self._helpers["probe server"].ask({"number": stream, "over": over, "finish": finish})

    def _address(self) -> str:
        assert self._plan is not None
        return self._plan.address

    def _probe(self, number: int, work: Any) -> None:
        _, link = fork("probe", work, close=[self._link, *(helper.link for helper in self._all())])
        self._senders[link.fileno()] = (link, number, b"")

    def _collect(self, descriptor: int) -> None:
        link, number, before = self._senders[descriptor]
        received = link.recv(1 << 20)
        if received:
            self._senders[descriptor] = (link, number, before + received)
            return
        del self._senders[descriptor]
        link.close()
        self._reply(number, json.loads(before) if before else {"error": "the probe ended without an answer"})

    # --- programs -----------------------------------------------------------------------------------------------------

    def do_start(self, _: int, argv: list[str], env: dict[str, str], log: str, directory: str) -> dict[str, Any]:
        program = launch(argv, env, Path(log), self._user, Path(directory))
        self._programs[program.pid] = program
        return {"program": program.pid}

    def do_poll(self, _: int, program: int) -> dict[str, Any]:
        return {"status": self._programs[program].poll()}

    def do_wait(self, number: int, program: int) -> dict[str, Any] | None:
        if (status := self._programs[program].poll()) is not None:
            return {"status": status}
        self._waiting.append((number, program))
        return None

    def do_signal(self, _: int, program: int, signal: int) -> dict[str, Any]:
        if self._programs[program].poll() is None:
            end_group(self._programs[program], signal)
        return {}

    def _reap(self) -> None:
        for program in self._programs.values():
            program.poll()
        for number, pid in [*self._waiting]:
            if (status := self._programs[pid].returncode) is not None:
                self._waiting.remove((number, pid))
                self._reply(number, {"status": status})
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


def main() -> None:
    """Arguments: socket path, node number, token, and the user number that programs run as (or -)."""
    path, node, token, user = sys.argv[1:5]
    call_myself("longhaul-agent")
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
