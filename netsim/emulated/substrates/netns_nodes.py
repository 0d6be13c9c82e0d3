"""The netns substrate: every node a network namespace of this host. Root, or rootless in a user namespace."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

from netsim.emulated.plan import Address
from netsim.emulated.substrates.launch import NetworkRequest
from netsim.errors import HostError
from netsim.library import ROOT

WAN_PREFIX, MGMT_PREFIX = "10.77", "10.78"


class NetnsNodes:
    """Brings up the switch process, which brings up the rest. See `netsim.emulated.substrates.switch`."""

    name = "netns"
    pins_sysctls = True

    def __init__(self) -> None:
        self._switch: subprocess.Popen[str] | None = None

    def start(self, order: NetworkRequest) -> None:
        """Returns when every node has its interfaces; the agents then connect by themselves."""
        nodes = []
        for launch in order.nodes:
            address = self.address(launch.index)
            nodes.append(
                {
                    "name": launch.site,
                    "argv": launch.argv(None),
                    "env": launch.env(order.owner),
                    "log": str(launch.log),
                    "wan_mac": address.mac,
                    "mgmt_mac": _mac(1, launch.index),
                }
            )
        request = {"rootless": os.geteuid() != 0, "mtu": order.mtu, "nodes": nodes}
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

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        switch = self._switch
        assert switch is not None
        assert switch.stdin is not None
        assert switch.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            switch.stdin.write(json.dumps(request) + "\n")
            switch.stdin.flush()
        line = switch.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the switch process ended at once"}
        return answer

    def address(self, index: int) -> Address:
        host = f"{(index + 1) // 256}.{(index + 1) % 256}"
        return Address(f"{WAN_PREFIX}.{host}", _mac(0, index), f"{MGMT_PREFIX}.{host}")

    def user(self, index: int) -> int | None:
        return None

    def alive(self) -> bool:
        return self._switch is not None and self._switch.poll() is None

    def set_realtime(self, index: int, process: int, priority: int) -> None:
        """The helper could ask for itself, and did."""

    def facts(self) -> dict[str, Any]:
        return {"rootless": os.geteuid() != 0}

    def close(self) -> None:
        """Ends the switch, and with it every process and namespace of this network."""
        if self._switch is None:
            return
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._switch.stdin.close()
        try:
            self._switch.wait(5)
        except subprocess.TimeoutExpired:
            self._switch.kill()
            self._switch.wait()
        self._switch.stdout.close()
        self._switch = None


def _mac(network: int, index: int) -> str:
    return f"02:6c:68:{network:02x}:{index // 256:02x}:{index % 256:02x}"


def _remedy() -> str:
    if os.geteuid() == 0:
        return ""
    settings = "kernel.unprivileged_userns_clone, user.max_user_namespaces"
    return f" (needs root, or unprivileged user namespaces; see the kernel settings {settings})"
