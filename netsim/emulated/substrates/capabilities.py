"""What this host's kernel can do for an emulated WAN, found by doing it in a namespace that is thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from netsim.library import ROOT

ENABLES = {
    "namespaces": "the netns substrate",
    "htb": "rates, with either engine",
    "ifb": "rates of arriving traffic, with either engine",
    "u32": "one rate per pair, with either engine",
    "mirred": "rates of arriving traffic, with either engine",
    "fq_codel": "queues of this kind",
    "red": "queues of this kind, also with ECN",
    "netem": "the netem engine",
    "nfqueue": "the nfqueue engine",
    "iptables": "the nfqueue engine",
    "br_netfilter": "queues of downlinks that TCP fills as across a real network",
    "cubic": "the TCP congestion control of the shipped topologies",
    "realtime": "delays that stay exact while every core is busy",
}


@dataclass(frozen=True)
class Capability:
    """One thing tried. `detail`: why it is missing."""

    name: str
    present: bool
    detail: str = ""

    @property
    def enables(self) -> str:
        return ENABLES[self.name]


@cache
def capabilities() -> dict[str, Capability]:
    """By name. Tried once per process, in a child; as root, or in a user namespace of its own."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "netsim.emulated.substrates.capabilities"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except json.JSONDecodeError:
        found = {"namespaces": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    return named(found)


def named(found: Mapping[str, str]) -> dict[str, Capability]:
    """From what `python -m netsim.emulated.substrates.capabilities` printed."""
    unknown = found.get("namespaces", "")
    return {name: Capability(name, not found.get(name, unknown), found.get(name, unknown)) for name in ENABLES}


def _try(here: bool) -> dict[str, str]:
    """An empty text per capability that is there, else what the kernel said.

    here: in this process's network namespace, for a container, which may make none; the caller removes lh-a and lh-i.
    """
    from netsim.emulated.node.devices import batch, run
    from netsim.emulated.node.nfqueue import QueueSocket
    from netsim.emulated.node.realtime import set_realtime
    from netsim.emulated.substrates import switch
    from netsim.errors import HostError

    found: dict[str, str] = {}

    def attempt(name: str, work: Callable[[], object]) -> None:
        try:
            work()
            found[name] = ""
        except (HostError, OSError) as error:
            found[name] = str(error)

    def enter() -> None:
        if not here:
            if os.geteuid() != 0:
                switch.become_root()
            switch.unshare(0x40000000)
        batch("ip", ["link add name lh-a type veth peer name lh-b", "link set lh-a up"])

    attempt("namespaces", enter)
    if found["namespaces"]:
        return found
    attempt(
        "htb",
        lambda: batch(
            "tc", ["qdisc add dev lh-a root handle 1: htb", "class add dev lh-a parent 1: classid 1:1 htb rate 1mbit"]
        ),
    )
    attempt(
        "u32",
        lambda: batch("tc", ["filter add dev lh-a parent 1: protocol ip u32 match ip dst 10.0.0.1/32 flowid 1:1"]),
    )
    attempt("ifb", lambda: batch("ip", ["link add name lh-i type ifb", "link set lh-i up"]))
    attempt(
        "mirred",
        lambda: batch(
            "tc",
            [
                "qdisc add dev lh-a handle ffff: ingress",
                "filter add dev lh-a parent ffff: protocol ip u32 match u32 0 0 action mirred egress redirect dev lh-i",
            ],
        ),
    )
    for kind, options in (
        ("fq_codel", "limit 10"),
        ("red", "limit 100000 min 10000 max 30000 avpkt 1500 burst 20 bandwidth 10mbit"),
    ):
        attempt(kind, partial(batch, "tc", [f"qdisc replace dev lh-b root {kind} {options}"]))
    attempt("netem", lambda: batch("tc", ["qdisc replace dev lh-b root netem delay 1ms"]))
    attempt("nfqueue", lambda: QueueSocket().bind(1, copy=False))
    attempt(
        "iptables",
        lambda: run(
            ["iptables-restore", "--wait", "10"],
            "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i lh-a -j NFQUEUE --queue-num 1\nCOMMIT\n",
        ),
    )
    loaded = switch.BRIDGE_NETFILTER.exists()
    found["br_netfilter"] = "" if loaded else "not loaded (modprobe br_netfilter)"
    attempt(
        "cubic",
        lambda: batch(
            "ip",
            [
                "address add 10.254.254.1/30 dev lh-a",
                "route replace 10.254.254.0/30 dev lh-a src 10.254.254.1 congctl cubic",
            ],
        ),
    )
    granted = set_realtime(1)
    found["realtime"] = "" if granted.startswith("fifo") else f"SCHED_FIFO refused, {granted} granted"
    return found


def container_engine() -> str:
    """The version of the Docker engine that answers, or an empty text."""
    if not _socket_there():
        return ""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    except (DockerException, OSError):
        return ""


def _socket_there() -> bool:
    """Whether it is worth importing the Docker client to ask."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return not host.startswith("unix://") or Path(host.removeprefix("unix://")).exists()


if __name__ == "__main__":
    print(json.dumps(_try("here" in sys.argv)))
