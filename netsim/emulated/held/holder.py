"""The holder: a process that keeps one network open for a time, and serves those who use it over a Unix socket.

It owns the network as a runner does: whatever ends it, SIGKILL too, ends the nodes, and `longhaul clean` finds what is
left of containers and directories. Started by `netsim.emulated.held.client.hold`, with what to open as a JSON document
on its standard input; the answer is one line on its standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netsim.emulated.held.messages import Lines, Message, error_message, send
from netsim.emulated.network import Network, open_network
from netsim.emulated.node.realtime import set_process_name
from netsim.emulated.nodes import NodeProcess
from netsim.emulated.owner import Owner, scratch
from netsim.errors import InputError, LinkError
from netsim.topology import topology_from

DESCRIPTION, SOCKET = "network.json", "holder"
END_SECONDS = 2.0  # that a program whose caller has gone has between SIGTERM and SIGKILL


class Holder:
    """Serves one open network until it is told to end, or its time is over."""

    def __init__(self, network: Network, directory: Path, seconds: float) -> None:
        self._network, self._directory = network, directory
        self._end = time.monotonic() + seconds
        self._changing = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / SOCKET))
        (directory / SOCKET).chmod(0o600)
        self._listener.listen(64)

    def serve(self) -> None:
        """Until the end; the links and the nodes must stay what they are, or it ends by itself with a LinkError."""
        self._listener.settimeout(0.2)
        while not self._stopped.is_set() and time.monotonic() < self._end:
            with contextlib.suppress(TimeoutError):
                link, _ = self._listener.accept()
                link.settimeout(None)
                threading.Thread(target=self._attend, args=(link,), daemon=True).start()
        self._listener.close()

    def stop(self) -> None:
        self._stopped.set()

    def _attend(self, link: socket.socket) -> None:
        """One caller: a request, its answer, and what follows from it."""
        lines = Lines(link)
        try:
            if (request := lines.next()) is not None:
                self._answer(link, lines, request)
        except OSError:
            pass  # the caller has gone
        except Exception as error:  # the caller decides what it means
            with contextlib.suppress(OSError):
                send(link, error_message(error))
        finally:
            for descriptor in lines.descriptors:
                os.close(descriptor)
            link.close()

    def _answer(self, link: socket.socket, lines: Lines, request: Message) -> None:
        match request.get("do"):
            case "exec" | "capture":
                self._run(link, lines, request)
            case "set":
                with self._changing:
                    self._network.change(*request["changes"])
                send(link, {})
            case "traffic":
                send(link, self._network.traffic().to_json())
            case "verify":
                self._network.verify()
                send(link, {})
            case "check":
                with self._changing:
                    report = self._network.check(bool(request["short"]))
                send(link, {**report.to_json(), "problems": report.problems()})
            case "down":
                self.stop()
                send(link, {})
            case unknown:
                raise LinkError(f"the process that holds this network does not know {unknown!r}")

    def _run(self, link: socket.socket, lines: Lines, request: Message) -> None:
        """A program for as long as its caller stays: its status is the last line; a line with a signal is passed on."""
        program = self._started(lines, request)
        send(link, {"started": True})

        def ended(status: int) -> None:
            with contextlib.suppress(OSError):
                send(link, {"status": status})
                link.shutdown(socket.SHUT_RDWR)

        program.on_end(ended)
        with contextlib.suppress(OSError, ValueError):
            while (message := lines.next()) is not None:
                program.signal(int(message["signal"]))
        for number in (signal.SIGTERM, signal.SIGKILL):
            if program.poll() is None:
                program.signal(number)
                with contextlib.suppress(TimeoutError):
                    program.wait(END_SECONDS)

    def _started(self, lines: Lines, request: Message) -> NodeProcess:
        node = next((node for node in self._network.nodes if node.site == request["site"]), None)
        if node is None:
            raise InputError.unknown("wan", "site", request["site"], [node.site for node in self._network.nodes])
        if request["do"] == "capture":
            (output,) = lines.descriptors
            return node.capture(output, int(request["kept"]))
        standard = lines.descriptors
        directory = Path(request["directory"]) if request["directory"] else None
        return node.attach(
            request["argv"],
            request["env"],
            (standard[0], standard[1], standard[2]),
            directory,
            terminal=bool(request["terminal"]),
        )


def describe(network: Network, name: str, seconds: float, directory: Path, visible: list[str]) -> dict[str, Any]:
    """What the holder tells those who list networks."""
    return {
        "name": name,
        "topology": network.topology.name,
        "substrate": network.substrate,
        "engine": network.engine,
        "reason": network.reason,
        "sites": [
            {"site": node.site, "wan": node.wan_address, "mgmt": node.mgmt_address, "user": node.user}
            for node in network.nodes
        ],
        "opened": time.time(),
        "until": time.time() + seconds,
        "holder": os.getpid(),
        "directory": str(directory),
        "visible": visible,
    }


def hold(order: Mapping[str, Any], answer: Any) -> None:
    """Opens what is asked for, says so, and serves it."""
    topology = topology_from(order["topology"], order["where"])
    with ExitStack() as stack:
        directory = stack.enter_context(scratch(f"wan-{order['name']}"))
        network = stack.enter_context(
            open_network(
                topology,
                run_id=f"wan-{order['name']}",
                directory=directory,
                substrate=order["substrate"],
                engine=order["engine"],
                read_only=[Path(path) for path in order["read_only"]],
                writable=[Path(path) for path in order["writable"]],
                seed=order["seed"],
                raw_sockets=True,
                gpus=order["gpus"],
            )
        )
        holder = Holder(network, directory, order["seconds"])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: holder.stop())
        if order["play"] and topology.timeline:
            stack.enter_context(network.play())
        described = describe(
            network, order["name"], order["seconds"], directory, [*order["read_only"], *order["writable"]]
        )
        written = directory / f"{DESCRIPTION}.part"
        written.write_text(json.dumps({**described, "owner": str(Owner.this())}, indent=1))
        written.rename(directory / DESCRIPTION)
        print(json.dumps(described), file=answer, flush=True)
        answer.close()
        holder.serve()


def main() -> None:
    set_process_name("longhaul-holder")
    order = json.loads(sys.stdin.readline())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        hold(order, answer)
    except Exception as error:
        if answer.closed:
            raise
        print(json.dumps(error_message(error)), file=answer, flush=True)


if __name__ == "__main__":
    main()
