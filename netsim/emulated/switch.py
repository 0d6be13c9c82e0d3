"""The switch of the netns substrate: a process that owns the bridges, and is the parent of every node's agent.

Its namespaces have no name and live only as long as processes in them; the kernel ends these processes when their
parent ends. So nothing is left whatever is killed. The bridges are in a namespace of their own: in the host's, its
firewall would drop their traffic. Without root, everything happens inside a user namespace.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from netsim.emulated.devices import batch
from netsim.emulated.priority import call_myself, die_with_parent
from netsim.emulated.shaping import MGMT, WAN

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000


def main() -> None:
    """One JSON line on standard input says what to build; one on standard output says "ready"; then until EOF."""
    order = json.loads(sys.stdin.readline())
    call_myself("longhaul-switch")
    die_with_parent(order["runner"])
    try:
        if order["rootless"]:
            become_root()
        unshare(_NEWNET)
        agents = [start_agent(node) for node in order["nodes"]]
        build(order, [pid for pid, _ in agents])
    except OSError as error:
        print(json.dumps({"error": f"{error.strerror}: {error.filename or 'namespaces'}"}), flush=True)
        return
    except Exception as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    for _, gate in agents:
        os.write(gate, b".")
        os.close(gate)
    print(json.dumps({"pids": [pid for pid, _ in agents]}), flush=True)
    sys.stdin.read()
    for pid, _ in agents:
        os.kill(pid, signal.SIGKILL)
    for pid, _ in agents:
        os.waitpid(pid, 0)


def unshare(flags: int) -> None:
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "a new namespace")


def become_root() -> None:
    """Root in a new user namespace, which is enough for everything below it."""
    user, group = os.geteuid(), os.getegid()
    unshare(_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def start_agent(node: dict[str, Any]) -> tuple[int, int]:
    """A child in a network namespace of its own, which waits for its interfaces and then becomes the agent."""
    entered_read, entered = os.pipe()
    gate_read, gate = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(entered)
        os.close(gate_read)
        if os.read(entered_read, 1) != b".":
            raise OSError(0, "no network namespace for a node", node["name"])
        os.close(entered_read)
        return child, gate
    try:
        die_with_parent(parent)
        unshare(_NEWNET)
        os.write(entered, b".")
        os.close(gate)
        if os.read(gate_read, 1):
            null = os.open(os.devnull, os.O_RDWR)
            output = os.open(node["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.execve(node["argv"][0], node["argv"], node["env"])
    finally:
        os._exit(1)


def build(order: dict[str, Any], pids: list[int]) -> None:
    """Two bridges, and for each node a cable to either."""
    lines = ["link set lo up"]
    for bridge, mtu in (("wan", order["mtu"]), ("mgmt", 1500)):
        lines += [
            f"link add name {bridge} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {bridge} up",
        ]
    for index, (node, pid) in enumerate(zip(order["nodes"], pids, strict=True)):
        for bridge, inside, mtu in (("wan", WAN, order["mtu"]), ("mgmt", MGMT, 1500)):
            outside = f"{bridge}{index}"
            lines += [
                f"link add name {outside} mtu {mtu} type veth peer name {inside} mtu {mtu} "
                f"address {node[f'{bridge}_mac']} netns {pid}",
                f"link set {outside} master {bridge} up",
            ]
    batch("ip", lines)
    for key in ("net.bridge.bridge-nf-call-iptables",):
        path = Path("/proc/sys", *key.split("."))
        if path.exists():
            path.write_text("0")


if __name__ == "__main__":
    main()
