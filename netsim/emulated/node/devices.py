"""Effects on this node's own network devices: names, addresses, offloads, shaping, counters, by ip, tc and iptables."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Sequence
from functools import cache
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from netsim.emulated.node.core_tc import (
    core_change_lines,
    core_device_lines,
    core_devices,
    core_expected,
    core_setup_lines,
)
from netsim.emulated.node.netem import SEEDED_SINCE
from netsim.emulated.node.tc import (
    ARRIVED,
    DOWN,
    IFB,
    MGMT,
    WAN,
    change_lines,
    device_lines,
    differences,
    downlink,
    minor,
    neighbour_lines,
    observed,
    queue_rules,
    segment_lines,
    segments_at_once,
    setup_lines,
)
from netsim.emulated.plan import NodePlan
from netsim.errors import HostError

_SIOCETHTOOL = 0x8946
_GET_GRO, _SET_GRO = 0x2B, 0x2C  # linux/ethtool.h
_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def tool(name: str) -> str:
    """The full path of a system tool, or a HostError that names its package."""
    found = next((path for folder in _FOLDERS if os.access(path := f"{folder}/{name}", os.X_OK)), None)
    if found is None:
        package = {"tc": "iproute2", "ip": "iproute2"}.get(name, "iptables")
        raise HostError(f"{name} is not installed; it is in the package {package}")
    return found


def run(argv: Sequence[str], lines: str | None = None) -> str:
    """Runs a tool; its standard output, or a HostError with what it complained about."""
    done = subprocess.run([tool(argv[0]), *argv[1:]], input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise HostError(f"{' '.join(argv)}: {complaint}{_offender(done.stderr, lines)}")
    return done.stdout


def _offender(complaint: str, lines: str | None) -> str:
    match = re.search(r"Command failed -:(\d+)", complaint)
    return f" (line: {lines.splitlines()[int(match[1]) - 1]})" if match and lines else ""


def batch(name: str, lines: Sequence[str], *options: str) -> None:
    """Runs `ip` or `tc` once for all lines."""
    if lines:
        run([name, *options, "-batch", "-"], "\n".join(lines) + "\n")


def shape(plan: NodePlan) -> None:
    """From two bare interfaces to a node of the WAN, except for the delay daemon."""
    own_mac = json.loads(run(["ip", "-j", "link", "show", "dev", WAN]))[0]["address"]
    batch(
        "ip",
        [
            "link set lo up",
            f"link set {WAN} mtu {plan.mtu}",
            f"address replace {plan.address}/{plan.prefix} dev {WAN}",
            f"address replace {plan.mgmt_address}/{plan.mgmt_prefix} dev {MGMT}",
            f"link set {WAN} up",
            f"link set {MGMT} up",
            *(core_device_lines(plan, own_mac) if plan.core else device_lines(plan, own_mac)),
            *neighbour_lines(plan),
        ],
    )
    _pin_congestion_control(plan)
    _ethtool(WAN, _SET_GRO, 0)  # would join the segments of senders that segment
    batch("ip", segment_lines(plan))
    batch("tc", core_setup_lines(plan) if plan.core else setup_lines(plan, seeded=netem_takes_seeds()))
    if plan.engine == "nfqueue":
        run(["iptables-restore", "--wait", "10"], queue_rules(plan))


def _pin_congestion_control(plan: NodePlan) -> None:
    """By the route: a namespace's default may only be what the host lists as allowed, a route's any that there is."""
    network = ip_interface(f"{plan.address}/{plan.prefix}").network
    wanted = plan.congestion_control
    route = f"{network} dev {WAN} proto kernel scope link src {plan.address} congctl {wanted}{_windows(plan)}"
    try:
        run(["ip", "route", "replace", *route.split()])
    except HostError as error:
        available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
        listed = available.read_text().strip() if available.exists() else "unknown"
        raise HostError(
            f"this kernel has no TCP congestion control {wanted} ready (available: {listed}). Load it as root "
            f"(modprobe tcp_{wanted}) or ask for another in the topology's transport. {error}"
        ) from None


def _windows(plan: NodePlan) -> str:
    window = plan.initial_window
    return "" if window is None else f" initcwnd {window} initrwnd {window}"


def initial_window() -> int | None:
    """Segments of a first window, as the route of wan0 has it; None for the kernel's own."""
    return None if (window := _route_metric("initcwnd")) is None else int(window)


def congestion_control() -> str:
    """What connections over wan0 use; empty if nothing is pinned."""
    return _route_metric("congestion") or ""


def _route_metric(name: str) -> str | None:
    routes = json.loads(run(["ip", "-j", "route", "show", "dev", WAN]) or "[]")
    metrics = [metric for route in routes for metric in route.get("metrics", [])]
    return next((str(metric[name]) for metric in metrics if name in metric), None)


def reshape(plan: NodePlan) -> None:
    """Applies a changed plan to a node that was shaped before."""
    batch("ip", segment_lines(plan))
    batch("tc", core_change_lines(plan) if plan.core else change_lines(plan, seeded=netem_takes_seeds()))


@cache
def netem_takes_seeds() -> bool:
    """Whether both tc and the kernel take a seed for netem."""
    versions = run(["tc", "-V"]), os.uname().release
    found = [re.search(r"(\d+)\.(\d+)", version) for version in versions]
    return all(match is not None and (int(match[1]), int(match[2])) >= SEEDED_SINCE for match in found)


def read_back(plan: NodePlan) -> tuple[list[tuple[str, str]], list[tuple[str, dict[str, Any]]]]:
    """What the kernel holds: classes and queueing disciplines of wan0 and the devices behind it, with their device."""
    classes: list[tuple[str, str]] = []
    qdiscs: list[tuple[str, dict[str, Any]]] = []
    behind = (IFB, DOWN, ARRIVED) if plan.engine == "netem" else (IFB,)
    for device in core_devices(plan) if plan.core else (WAN, *behind):
        classes += [(device, line) for line in run(["tc", "class", "show", "dev", device]).splitlines()]
        qdiscs += [(device, entry) for entry in json.loads(run(["tc", "-j", "qdisc", "show", "dev", device]) or "[]")]
    return classes, qdiscs


def mismatches(plan: NodePlan) -> list[str]:
    """Where the kernel's shaping, offloads or queue rules are not the plan's, in words."""
    found = differences(plan, observed(*read_back(plan)), core_expected(plan) if plan.core else None)
    asked, seen = segments_at_once(plan), offloads()
    if seen != {"gso_max_segs": asked, "gro": 0}:
        found.append(f"{plan.site} {WAN}: expected gso_max_segs {asked} and GRO off, found {seen}")
    if (pinned := congestion_control() or "none") != plan.congestion_control:
        found.append(f"{plan.site} {WAN}: expected congestion control {plan.congestion_control}, found {pinned}")
    if (window := initial_window()) != plan.initial_window:
        found.append(f"{plan.site} {WAN}: expected a first window of {plan.initial_window}, found {window} segments")
    if plan.engine == "nfqueue":
        rules = run(["iptables", "-w", "10", "-t", "mangle", "-S", "PREROUTING"])
        found += [
            f"{plan.site}: no NFQUEUE rule for packets from {peer.site}"
            for peer in plan.peers
            if f"-s {peer.address}/32 -i {WAN} -j NFQUEUE" not in rules
        ]
    return found


def set_sysctls(values: dict[str, str]) -> None:
    """Writes per-namespace kernel settings."""
    for key, value in values.items():
        path = Path("/proc/sys", *key.split("."))
        try:
            if path.read_text().split() != value.split():
                path.write_text(value)
        except FileNotFoundError:
            if ".ipv6." not in key:  # a kernel without IPv6 needs none of it
                raise HostError(f"this kernel has no setting {key}") from None
        except OSError as error:
            raise HostError(f"{key} = {value} refused: {error.strerror}") from None


def counters(plan: NodePlan) -> dict[str, int]:
    """Bytes and packets of the WAN, as the shapers counted them: every frame with its headers.

    The interface's own counters would count 45 segments that travel as one with the headers of one, and what the
    bridge says of itself.
    """
    found: dict[str, int] = {}
    for side, device in (("tx", WAN), ("rx", downlink(plan))):
        entries = json.loads(run(["tc", "-s", "-j", "qdisc", "show", "dev", device, "root"]))
        root = next((entry for entry in entries if entry.get("root") and entry["kind"] == "htb"), None)
        if root is None:
            raise HostError(f"{device} is no longer shaped")
        found |= {f"{side}_bytes": root["bytes"], f"{side}_packets": root["packets"]}
    return found


def traffic(plan: NodePlan) -> tuple[dict[str, dict[str, int]], dict[str, int], dict[str, int]]:
    """The queues out to each peer, the downlink's, and with netem the packets from each peer that loss took."""
    out = _queues(WAN)
    down = _queues(downlink(plan)).get("10:", {})
    lost = _queues(IFB) if plan.engine == "netem" else {}
    number = {peer.site: f"{minor(index):x}:" for index, peer in enumerate(plan.peers)}
    return (
        {site: out[handle] for site, handle in number.items() if handle in out},
        down,
        {site: lost[handle]["drops"] for site, handle in number.items() if handle in lost},
    )


def _queues(device: str) -> dict[str, dict[str, int]]:
    """Counters of every queueing discipline of a device, by handle."""
    names = {
        "bytes": "bytes",
        "packets": "packets",
        "drops": "drops",
        "queue_bytes": "backlog",
        "queue_packets": "qlen",
    }
    entries = json.loads(run(["tc", "-s", "-j", "qdisc", "show", "dev", device]) or "[]")
    return {entry["handle"]: {ours: int(entry[theirs]) for ours, theirs in names.items()} for entry in entries}


def allow_echoes() -> None:
    """Lets `ping` work in this namespace without any power: by ICMP datagram sockets, for every group that there is."""
    for groups in ("0 2147483647", "0 0"):  # a user namespace has only some
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/ping_group_range").write_text(groups)
            return


def offloads() -> dict[str, int]:
    """How many segments wan0 may send as one, and whether it joins those that arrive."""
    (link,) = json.loads(run(["ip", "-j", "-d", "link", "show", "dev", WAN]))
    return {"gso_max_segs": link["gso_max_segs"], "gro": _ethtool(WAN, _GET_GRO, 0)}


def _ethtool(device: str, command: int, value: int) -> int:
    request = bytearray(struct.pack("=II", command, value))
    address, _ = _address_of(request)
    packed = struct.pack("16sQ16x", device.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, packed)
    return int(struct.unpack("=II", request)[1])


def _address_of(buffer: bytearray) -> tuple[int, object]:
    import ctypes

    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    return ctypes.addressof(view), view


def adopt(mgmt_address: str, wan_address: str) -> None:
    """Gives the two interfaces that a container engine made our names, found by their addresses."""
    wanted = {wan_address: WAN, mgmt_address: MGMT}
    for link in json.loads(run(["ip", "-j", "address", "show"])):
        for info in link.get("addr_info", []):
            name = wanted.get(info.get("local"))
            if name and link["ifname"] != name:
                batch(
                    "ip",
                    [
                        f"link set {link['ifname']} down",
                        f"link set {link['ifname']} name {name}",
                        f"link set {name} up",
                    ],
                )
