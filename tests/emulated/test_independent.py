"""Links as programs that are not ours measure them (ping -U, iperf3), and gates of networks with many sites."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from netsim.emulated.network import Network, open_network
from netsim.emulated.owner import Owner
from netsim.framing import goodput
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.topology import topology_from
from netsim.traffic import Collective, Plan, Recurrence, Transfer
from tests.emulated.networks import PAIR, command_of, need, pair, processes_of
from tests.test_core_links import DUMBBELL

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timing]
TOOLS = ("iperf3", "ping", "nsenter")
with_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")

QUEUE = 60_000
NARROW = {"up": "10 Mbit", "down": "20 Mbit", "delay": "25 ms", "queue": f"{QUEUE} B"}


@contextmanager
def opened(directory: Path, document: dict[str, Any], substrate: str = "netns") -> Iterator[tuple[Network, list[int]]]:
    """The network, and the processes of its agents in the order of the sites."""
    need(substrate)
    topology = pair(**document) if "name" not in document else topology_from(document, "test")
    with open_network(topology, run_id="t", directory=directory, substrate=substrate, engine="nfqueue") as network:
        agents = [one for one in processes_of(str(Owner.this())) if command_of(one) == "longhaul-agent"]
        number = {Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")[5]: one for one in agents}
        yield network, [number[b"%d" % index] for index in range(len(agents))]


def start(agent: int, *argv: str) -> subprocess.Popen[str]:
    command = ["nsenter", "-t", str(agent), "-n", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def iperf3_servers(*agents: int, ports: Sequence[int] = (5201,)) -> Iterator[None]:
    servers = [start(agent, "iperf3", "-s", "-p", str(port)) for agent in agents for port in ports]
    try:
        time.sleep(0.5)
        yield
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def ping(agent: int, address: str, count: int = 20) -> list[float]:
    """Round trips as user space sees them, ms."""
    text, _ = start(agent, "ping", "-U", "-n", "-c", str(count), "-i", "0.1", "-W", "3", address).communicate(
        timeout=60
    )
    return [float(one) for one in re.findall(r"time=([\d.]+) ms", text)]


@with_tools
def test_ping_and_iperf3_find_the_delay_rate_and_queue(tmp_path: Path) -> None:
    with opened(tmp_path, {"defaults": NARROW}) as (network, (a, b)):
        address = network.nodes[1].wan_address
        assert median(ping(a, address)) == pytest.approx(50, abs=2)
        with iperf3_servers(b):
            tcp = start(a, "iperf3", "-J", "-c", address, "-t", "6")
            time.sleep(2)
            under_tcp = ping(a, address)
            found = json.loads(tcp.communicate(timeout=30)[0])
            # Half as much again as the link takes keeps its queue full: 60 kB at 10 Mbit/s are 48 ms.
            udp = start(a, "iperf3", "-c", address, "-u", "-b", "15M", "-l", "1472", "-t", "6")
            time.sleep(2)
            under_udp = ping(a, address)
            udp.communicate(timeout=30)
    assert found["end"]["sum_received"]["bits_per_second"] == pytest.approx(goodput(10e6, 1500), rel=0.04)
    assert 49 < median(under_tcp) < 50 + QUEUE * 8 / 10e3 + 3
    assert median(under_udp) == pytest.approx(50 + QUEUE * 8 / 10e3, abs=6)


@with_tools
def test_ping_finds_the_queue_of_a_downlink(tmp_path: Path) -> None:
    """15 kB at 2 Mbit/s are 60 ms, although the uplink takes all that is sent."""
    document = {
        "defaults": {"up": "20 Mbit", "down": "20 Mbit", "delay": "20 ms"},
        "sites": {"a": {}, "b": {"down": "2 Mbit"}},
        "links": [{"from": "a", "to": "b", "delay": "20 ms", "queue": "15 kB"}],
    }
    with opened(tmp_path, document) as (network, (a, b)):
        address = network.nodes[1].wan_address
        with iperf3_servers(b):
            udp = start(a, "iperf3", "-c", address, "-u", "-b", "3M", "-l", "1472", "-t", "6")
            time.sleep(2)
            found = ping(a, address)
            udp.communicate(timeout=30)
    assert median(found) == pytest.approx(40 + 60, abs=8)


@with_tools
@pytest.mark.docker
@pytest.mark.parametrize("substrate", ["netns", "docker"])
def test_tcp_fills_the_queue_of_a_downlink(tmp_path: Path, substrate: str) -> None:
    """Two senders meet in it. The kernel of a real one knows nothing of packets that have left it."""
    queue = 500_000
    document = {
        "defaults": {"up": "20 Mbit", "down": "20 Mbit", "delay": "10 ms", "queue": f"{queue} B"},
        "sites": {"a": {}, "b": {}, "c": {"down": "15 Mbit"}},
    }
    with opened(tmp_path, document, substrate) as (network, (a, b, c)):
        address = network.nodes[2].wan_address
        with iperf3_servers(c, ports=(5201, 5202)):
            flows = [start(x, "iperf3", "-c", address, "-p", port, "-t", "6") for x, port in ((a, "5201"), (b, "5202"))]
            deepest = 0
            for _ in range(50):
                time.sleep(0.1)
                queues = json.loads(start(c, "tc", "-s", "-j", "qdisc", "show", "dev", "ifb-wan").communicate()[0])
                deepest = max(deepest, *(one["backlog"] for one in queues if one["kind"] == "bfifo"))
            for flow in flows:
                flow.communicate(timeout=30)
    assert 0.6 * queue < deepest <= queue


@with_tools
def test_two_flows_share_a_core_link_as_projected(tmp_path: Path) -> None:
    """A dumbbell of 2 + 2 sites: iperf3 over both pairs at once gets the rate of the middle, half of it each."""
    topology = topology_from(DUMBBELL, "test")
    with opened(tmp_path, DUMBBELL) as (network, (a, b, c, d, _)):
        assert [node.site for node in network.nodes] == ["a", "b", "c", "d"]
        report = network.check(short=True)
        addresses = [node.wan_address for node in network.nodes]
        assert median(ping(a, addresses[2])) == pytest.approx(20, abs=2)
        with iperf3_servers(c, d):
            flows = [start(x, "iperf3", "-J", "-c", addresses[y], "-t", "8", "-O", "2") for x, y in ((a, 2), (b, 3))]
            texts = [flow.communicate(timeout=40)[0] for flow in flows]
        network.verify()
    assert report.passed, report.problems()
    rates = [json.loads(text)["end"]["sum_received"]["bits_per_second"] for text in texts]
    sends = tuple(Transfer(f"{x}", 250_000, (x, y), collective=Collective.SEND, root=x) for x, y in ((0, 2), (1, 3)))
    simulated = simulate(Plan(4, 1, (Recurrence(sends, 1, 1, 1),)), topology, Compute((1.0,) * 4)).wall_seconds - 1
    assert sum(rates) == pytest.approx(goodput(10e6, 1500), rel=0.04)
    assert sum(rates) == pytest.approx(2 * 1e6 * 8 / simulated, rel=0.05)
    assert min(rates) > 0.25 * sum(rates)


@pytest.mark.docker
@pytest.mark.parametrize(
    "document",
    [DUMBBELL, {**PAIR, "sites": {"a": {"up": "1 Gbit"}, "b": {"down": "20 Mbit"}}}],
    ids=["core", "downlink"],
)
def test_a_queue_behind_the_sender_loses_no_probes(tmp_path: Path, document: dict[str, Any]) -> None:
    """The kernel does not hold a sender back for what waits further on, so probes pace themselves."""
    need("docker")
    topology = topology_from(document, "test")
    with open_network(topology, run_id="t", directory=tmp_path, substrate="docker", engine="nfqueue") as network:
        report = network.check(short=True)
    assert report.passed, report.problems()
    assert sum(link.lost for link in report.links) == 0


def many(count: int) -> dict[str, Any]:
    return {
        "name": "many",
        "defaults": {"up": "50 Mbit", "down": "50 Mbit", "delay": "25 ms"},
        "transport": {"congestion_control": "reno"},
        "sites": {f"s{number}": {} for number in range(count)},
    }


def test_the_gate_passes_a_healthy_network_of_many_sites(tmp_path: Path) -> None:
    """As is, and how long it takes, of 2 to 64 sites: docs/accuracy.md."""
    count = 32
    with opened(tmp_path, many(count)) as (network, _):
        began = time.monotonic()
        report = network.check(short=True)
        took = time.monotonic() - began
    assert report.passed, report.problems()
    assert took < 60
    assert len(report.links) + sum(report.inferred.values()) == count * (count - 1)
