"""The switch of the netns substrate: a process that owns the bridges, and is the parent of every node's agent.

Its namespaces have no name and live only as long as processes in them. An agent and its programs end with their parent,
which the kernel sees to; what these leave behind becomes a child of the switch, which ends it. So nothing is left,
whatever is killed. The bridges are in a namespace of their own: in the host's, its firewall would drop their traffic.
Without root, everything happens inside a user namespace.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from netsim.emulated.node.devices import batch, set_sysctls
from netsim.emulated.node.realtime import die_with_parent, set_process_name
from netsim.emulated.node.tc import MGMT, WAN
from netsim.emulated.substrates.node_root import build_root
from netsim.emulated.substrates.resource_limits import remove_groups

_libc = ctypes.CDLL(None, use_errno=True)
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_NEWNS, _NEWIPC, _NEWUTS = 0x00020000, 0x08000000, 0x04000000
_PR_SET_CHILD_SUBREAPER = 36
# A packet belongs to its sender's socket until it is received, through cables and bridges too, and TCP limits how much
# of its own waits inside a host (TCP small queues): it would never fill the queue of another site's downlink. A bridge
# whose packets netfilter sees, here without any rule, parts them.
BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")  # of this network namespace


def main() -> None:
    """One JSON line on standard input says what to build; one on standard output says "ready"; then until EOF."""
    order = json.loads(sys.stdin.readline())  # one line; more is never sent
    set_process_name("longhaul-switch")
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        if order["rootless"]:
            become_root()
        unshare(_NEWNET)
        # No IPv6 on the bridges and their ports: its neighbour discovery would be counted as traffic of the nodes.
        set_sysctls({f"net.ipv6.conf.{which}.disable_ipv6": "1" for which in ("all", "default")})
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
    watch([pid for pid, _ in agents])
    # The runner removes these itself, unless it was killed.
    remove_groups([Path(group) for node in order["nodes"] for group in node["groups"]])
    shutil.rmtree(order["runtime"], ignore_errors=True)


def watch(agents: list[int]) -> None:
    """Until the runner closes standard input, which its end does too. What a dead agent's programs left is ended."""
    networks = {agent: network_of(agent) for agent in agents}
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            for ended in reap():
                if (network := networks.pop(ended, None)) is not None:
                    end_children(partial(in_network, network))
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
            end_children(lambda child: True)
            return


def end_children(chosen: Callable[[int], bool]) -> None:
    """Kills children, and their children, which then become ours, until none of those chosen is left."""
    while children := [child for child in own_children() if chosen(child)]:
        for child in children:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
        reap()


def reap() -> list[int]:
    """The children that have ended."""
    ended: list[int] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append(pid)


def own_children() -> list[int]:
    """Without those that have ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(entry.name))
    return found


def in_network(network: str, process: int) -> bool:
    return network_of(process) == network


def network_of(process: int) -> str:
    """Names the network namespace of a process; empty if it has ended."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return ""


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
    """A child in namespaces of its own, which waits for its interfaces and then becomes the agent.

    If it is to be confined, it has a root and bounds of its own; `unshare` gives the agent a numbering of processes.
    """
    entered_read, entered = os.pipe()
    gate_read, gate = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(entered)
        os.close(gate_read)
        if (said := os.read(entered_read, 4096)) != b".":
            raise OSError(0, said.decode() or "no namespaces for a node", node["name"])
        os.close(entered_read)
        return child, gate
    try:
        die_with_parent(parent)
        for group in node["groups"]:
            Path(group, "cgroup.procs").write_text("0")
        try:
            unshare(_NEWNET)
            if (root := node["root"]) is not None:
                unshare(_NEWNS | _NEWIPC | _NEWUTS)
                build_root(Path(root["path"]), root["binds"], root["links"], root["files"])
        except OSError as error:
            os.write(entered, str(error.strerror).encode())
            raise
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
    if BRIDGE_NETFILTER.exists():
        BRIDGE_NETFILTER.write_text("1")


if __name__ == "__main__":
    main()
