"""The netns substrate: every node made of namespaces of this host. Root, or rootless in a user namespace.

A node of a network that is to be confined is, if root asks, confined as a container is: a root of its own, its own
process numbers, bounds on memory and processes, and programs run as a user of their own. Any other node is a network
namespace alone, and its programs run as the user who starts them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from netsim.emulated.node.devices import tool
from netsim.emulated.node.processes import is_stopped
from netsim.emulated.plan import Address
from netsim.emulated.substrates.launch import PROCESSES, AgentSpec, NetworkRequest, program_user
from netsim.emulated.substrates.resource_limits import make_groups, remove_groups
from netsim.emulated.substrates.visible import FILES, system_links, visible
from netsim.errors import HostError
from netsim.library import ROOT

BUILD_SECONDS = 60.0  # for the switch to build the namespaces
CLOSE_SECONDS = 5.0  # for the switch to end what runs in them, before it is killed
WAN_PREFIX, MGMT_PREFIX = "10.77", "10.78"


class NetnsNodes:
    """Brings up the switch process, which brings up the rest. See `netsim.emulated.substrates.switch`."""

    name = "netns"
    pins_sysctls = True

    def __init__(self) -> None:
        self._switch: subprocess.Popen[str] | None = None
        self._confined = False
        self._groups: list[list[Path]] = []  # control groups of each confined node

    def start(self, order: NetworkRequest) -> None:
        """Returns when every node has its interfaces; the agents then connect by themselves."""
        self._confined = order.confined and os.geteuid() == 0
        nodes = []
        for launch in order.nodes:
            address = self.address(launch.index)
            nodes.append(
                {
                    "name": launch.site,
                    "argv": launch.argv(None),
                    "root": None,
                    "groups": [],
                    "env": launch.env(order.owner),
                    "log": str(launch.log),
                    "wan_mac": address.mac,
                    "mgmt_mac": address.mgmt_mac,
                    **(self._confinement(launch, order) if self._confined else {}),
                }
            )
        runtime = str(order.runtime)
        request = {"rootless": os.geteuid() != 0, "mtu": order.mtu, "nodes": nodes, "runtime": runtime}
        environment = order.nodes[0].env(order.owner)
        self._switch = subprocess.Popen(
            [sys.executable, "-S", "-m", "netsim.emulated.substrates.switch"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        answer = self._exchange(request)
        if "error" in answer:
            self.close()
            raise HostError(f"netns substrate: {answer['error']}{_remedy()}")

    def _confinement(self, launch: AgentSpec, order: NetworkRequest) -> dict[str, Any]:
        """What the switch is told about one node in addition, and instead."""
        root = str(order.runtime / "root")
        name = f"{order.owner}-{order.runtime.name[-8:]}-{launch.index}"
        self._groups.append(make_groups(name, order.memory, PROCESSES))
        writable = [launch.log.parent, launch.control.parent, *order.writable]
        binds = [(one.path, one.source, one.read_only) for one in visible(writable, order.read_only)]
        # util-linux's own: the switch's child is then the parent of the first process of the node, and dies with it.
        enter = [tool("unshare"), "--pid", "--fork", "--kill-child=KILL", "--root", root, "--mount-proc=/proc", "--"]
        return {
            "argv": [*enter, *launch.argv(self.user(launch.index))],
            "root": {"path": root, "binds": binds, "links": system_links(), "files": FILES},
            "groups": [str(group) for group in self._groups[-1]],
        }

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        switch = self._switch
        assert switch is not None
        assert switch.stdin is not None
        assert switch.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            switch.stdin.write(json.dumps(request) + "\n")
            switch.stdin.flush()
        ready, _, _ = select.select([switch.stdout], [], [], BUILD_SECONDS)
        if not ready:
            return {"error": f"the switch process has not answered for {BUILD_SECONDS:.0f} s: it is stopped"}
        line = switch.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the switch process ended at once"}
        return answer

    def address(self, index: int) -> Address:
        host = f"{(index + 1) // 256}.{(index + 1) % 256}"
        return Address(f"{WAN_PREFIX}.{host}", _mac(0, index), f"{MGMT_PREFIX}.{host}", _mac(1, index))

    def user(self, index: int) -> int | None:
        return program_user(index) if self._confined else None

    def alive(self) -> bool:
        return self._switch is not None and self._switch.poll() is None and not is_stopped(self._switch.pid)

    def set_realtime(self, index: int, process: int, priority: int) -> None:
        """The helper could ask for itself, and did."""

    def facts(self) -> dict[str, Any]:
        limited = self._confined and all(self._groups)
        return {"rootless": os.geteuid() != 0, "confined": self._confined, "limited": limited}

    def close(self) -> None:
        """Ends the switch, and with it every process and namespace of this network."""
        if self._switch is None:
            return
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._switch.stdin.close()
        try:
            self._switch.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._switch.kill()
            self._switch.wait()
        self._switch.stdout.close()
        self._switch = None
        remove_groups([group for groups in self._groups for group in groups])
        self._groups = []


def _mac(network: int, index: int) -> str:
    return f"02:6c:68:{network:02x}:{index // 256:02x}:{index % 256:02x}"


def _remedy() -> str:
    if os.geteuid() == 0:
        return ""
    settings = "kernel.unprivileged_userns_clone, user.max_user_namespaces"
    return f" (needs root, or unprivileged user namespaces; see the kernel settings {settings})"
