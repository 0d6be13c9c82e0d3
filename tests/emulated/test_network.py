"""Networks that stand, on both substrates: links as asked, programs without powers, and every break noticed."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from netsim.emulated.network import Network, NodeProcess, open_network
from netsim.emulated.node.devices import tool
from netsim.emulated.owner import Owner
from netsim.errors import InputError, LinkError
from netsim.framing import frames, wire_bytes
from netsim.topology import Topology
from tests.emulated.networks import command_of, eventually, need, pair, processes_of

SUBSTRATES = [
    pytest.param("netns", marks=pytest.mark.root),
    pytest.param("docker", marks=pytest.mark.docker),
]

SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000)) as one:
    one.sendall(bytes(int(sys.argv[2])))
    one.shutdown(socket.SHUT_WR)
    one.recv(1)
"""

TAKE = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print("listening", flush=True)
    one, _ = server.accept()
    while one.recv(1 << 16):
        pass
"""


@pytest.fixture(params=SUBSTRATES)
def substrate(request: pytest.FixtureRequest) -> str:
    need(str(request.param))
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)  # a container's program is nobody
    return tmp_path


def opened(topology: Topology, substrate: str, directory: Path) -> Iterator[Network]:
    with open_network(topology, run_id="test", directory=directory, substrate=substrate, engine="nfqueue") as network:
        yield network


@pytest.fixture
def network(substrate: str, directory: Path) -> Iterator[Network]:
    yield from opened(pair(), substrate, directory)


def python(network: Network, node: int, script: str, *arguments: str, log: Path) -> NodeProcess:
    return network.nodes[node].start([sys.executable, "-S", "-c", script, *arguments], {}, log)


def helpers(name: str) -> list[int]:
    return [process for process in processes_of(str(Owner.this())) if command_of(process) == name]


def inside(site: int, *argv: str) -> str:
    """What a command of root's prints in the namespace of the node, unseen by its agent."""
    argv = (tool("nsenter"), "-t", str(agent(site)), "-n", tool(argv[0]), *argv[1:])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def agent(site: int) -> int:
    """The process of the node's agent, which is told its number on its command line."""
    found = helpers("longhaul-agent")
    return next(
        process for process in found if Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[5] == b"%d" % site
    )


def test_every_pair_passes_and_the_record_has_its_facts(network: Network) -> None:
    """Every pair is as asked and the record says what it is made of."""
    report = network.check(short=True)
    assert report.passed, report.problems()
    assert {(link.source, link.target) for link in report.links} == {("a", "b"), ("b", "a")}
    network.verify()
    facts = network.environment()
    assert facts["engine"] == "nfqueue"
    node = facts["nodes"]["a"]
    assert node["sysctls"]["net.ipv4.tcp_congestion_control"] == "reno"
    assert node["sysctls"]["net.ipv4.tcp_wmem"].split()[2] == "64000000"
    assert any("ceil 40Mbit" in line for line in node["classes"])
    json.dumps(facts)


def test_no_node_asks_for_the_hardware_address_of_another(network: Network) -> None:
    """What is asked for is kept in one table of the whole host, which 33 nodes overflow."""
    other = network.nodes[1]
    for device, address in (("wan0", other.wan_address), ("mgmt0", other.mgmt_address)):
        (known,) = json.loads(inside(0, "ip", "-j", "neigh", "show", "dev", device, "to", address))
        assert known["state"] == ["PERMANENT"]


def test_programs_in_a_node_cannot_change_the_network(network: Network, directory: Path) -> None:
    """A program runs in its node and cannot change the network."""
    log = directory / "program.log"
    command = "ip -br link; ip link set wan0 down && echo lowered; tc qdisc del dev wan0 root && echo freed; exit 7"
    program = network.nodes[0].start(["/bin/sh", "-c", command], {"PATH": os.environ["PATH"]}, log)
    assert program.wait(20) == 7
    text = log.read_text()
    assert "wan0" in text
    assert "mgmt0" in text
    assert "lowered" not in text
    assert "freed" not in text
    network.verify()


def test_a_program_can_be_waited_for_signalled_and_killed(network: Network, directory: Path) -> None:
    sleeper = network.nodes[0].start(["/bin/sleep", "60"], {}, directory / "sleep.log")
    assert sleeper.poll() is None
    with pytest.raises(TimeoutError):
        sleeper.wait(0.05)
    sleeper.signal(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    sleeper.kill()  # once more does no harm
    assert sleeper.poll() == -signal.SIGTERM


def test_the_counters_are_the_traffic_and_nothing_else(network: Network, directory: Path) -> None:
    time.sleep(0.2)
    before = [node.counters() for node in network.nodes]
    time.sleep(0.3)
    assert [node.counters() for node in network.nodes] == before
    taker = python(network, 1, TAKE, network.nodes[1].wan_address, log=directory / "take.log")
    assert eventually(lambda: "listening" in (directory / "take.log").read_text())
    sender = python(network, 0, SEND, network.nodes[1].wan_address, "1000000", log=directory / "send.log")
    assert sender.wait(20) == taker.wait(20) == 0
    after = [node.counters() for node in network.nodes]
    sent = after[0].tx_bytes - before[0].tx_bytes
    # A stream ends a few segments short here and there, and opening and closing it takes frames of its own.
    assert wire_bytes(1_000_000, 1500) <= sent <= wire_bytes(1_000_000, 1500) * 1.01
    assert after[1].rx_bytes - before[1].rx_bytes == sent
    assert after[0].tx_packets - before[0].tx_packets >= frames(1_000_000, 1500)


def test_a_killed_delay_daemon_stops_the_traffic_and_is_named(network: Network) -> None:
    os.kill(helpers("delay daemon")[0], signal.SIGKILL)
    assert [took for _, took in network.echo("a", "b", count=5)] == [None] * 5
    with pytest.raises(LinkError, match="the delay daemon has ended"):
        network.verify()


def test_a_link_broken_behind_the_gates_back_is_caught_and_named(network: Network) -> None:
    slower = ["htb", "rate", "20mbit", "ceil", "20mbit", "burst", "20k", "cburst", "20k"]
    inside(0, "tc", "class", "change", "dev", "wan0", "parent", "1:1", "classid", "1:10", *slower)
    report = network.check(short=True)
    assert [(link.source, link.target) for link in report.links if not link.passed] == [("a", "b")]
    assert re.match(r"a -> b: goodput 1\d(\.\d+)? Mbit/s, expected 38\.26", report.problems()[0])
    with pytest.raises(LinkError, match="a wan0 1:10: expected 40000000.0, found 20000000.0"):
        network.verify()


def test_queue_rules_that_vanish_are_noticed(network: Network) -> None:
    inside(1, "iptables", "-t", "mangle", "-F")
    report = network.check(short=True)
    assert not report.passed
    assert "RTT 15" in report.problems()[0]
    with pytest.raises(LinkError, match="b: no NFQUEUE rule for packets from a"):
        network.verify()


def test_a_killed_agent_takes_its_node_along_and_is_noticed(network: Network, directory: Path) -> None:
    sleeper = network.nodes[0].start(["/bin/sleep", "60"], {}, directory / "sleep.log")
    os.kill(agent(0), signal.SIGKILL)
    assert eventually(lambda: sleeper.poll() == -signal.SIGKILL)
    with pytest.raises(LinkError):
        network.verify()


def typical(took: list[float | None]) -> float:
    """The median of what came back, which nearly all must have."""
    returned = [one for one in took if one is not None]
    assert len(returned) > 0.9 * len(took) > 10
    return statistics.median(returned)


@pytest.mark.timing
def test_a_timeline_happens_on_the_live_network(substrate: str, directory: Path) -> None:
    events = [
        {"at": "1 s", "set": {"from": "a", "to": "b", "delay": "60 ms"}},
        {"at": "2 s", "partition": {"groups": [["a"], ["b"]]}},
        {"at": "3 s", "heal": "all"},
        {"at": "3 s", "set": {"from": "a", "to": "b", "delay": "15 ms"}},
    ]
    for network in opened(pair(timeline=events), substrate, directory):
        with network.play() as player:
            begin = time.monotonic()
            found = network.echo("a", "b", count=400, interval=0.01)
            network.verify()
        assert player.error is None
        assert [played.kind for played in player.played] == ["links"] * 4
        during = {
            second: [took for at, took in found if second + 0.3 < at - begin < second + 0.95] for second in range(4)
        }
        assert typical(during[0]) == pytest.approx(0.0305, abs=0.001)
        assert typical(during[1]) == pytest.approx(0.0755, abs=0.001)
        assert set(during[2]) == {None}
        assert typical(during[3]) == pytest.approx(0.0305, abs=0.001)


@pytest.mark.timing
def test_a_paused_site_stands_still_and_a_crashed_one_ends(substrate: str, directory: Path) -> None:
    events = [{"from": "0.3 s", "to": "1 s", "pause": {"site": "a"}}, {"at": "1.5 s", "crash": {"site": "a"}}]
    for network in opened(pair(timeline=events), substrate, directory):
        log = directory / "tick.log"
        ticking = "import time\nwhile True:\n    print(time.time(), flush=True)\n    time.sleep(0.05)"
        program = python(network, 0, ticking, log=log)
        assert eventually(log.exists)
        with network.play():
            begin = time.time()
            assert program.wait(5) == -signal.SIGKILL
        ticks = [float(line) - begin for line in log.read_text().splitlines()]
        longest, start = max((after - before, before) for before, after in pairwise(ticks))
        assert 0.5 < longest < 1.0
        assert 0.1 < start < 0.6
        assert 1.1 < max(ticks) < 1.9


def crossed(rate: str, until: str) -> Topology:
    """The pair, with cross-traffic from its first site to its second."""
    return pair(timeline=[{"from": "0 s", "to": until, "traffic": {"from": "a", "to": "b", "rate": rate}}])


@pytest.mark.timing
def test_cross_traffic_is_not_counted_as_training(substrate: str, directory: Path) -> None:
    """Cross traffic takes its share and is not counted as training."""
    for network in opened(crossed("8 Mbit", until="0.8 s"), substrate, directory):
        before = [node.counters() for node in network.nodes]
        with network.play():
            time.sleep(1.2)
        after = [node.counters() for node in network.nodes]
        assert after[0].tx_bytes - before[0].tx_bytes == 0
        assert after[1].rx_bytes - before[1].rx_bytes == pytest.approx(800_000, rel=0.02)


@pytest.mark.timing
def test_cross_traffic_ends_with_the_timeline(substrate: str, directory: Path) -> None:
    """What would go on for a minute is over when the links are checked after a run."""
    for network in opened(crossed("8 Mbit", until="60 s"), substrate, directory):
        with network.play() as player:
            time.sleep(0.5)
        assert player.crowded == []
        time.sleep(0.2)  # for what was under way
        received = network.nodes[1].counters().rx_bytes
        assert received > 400_000
        time.sleep(0.5)
        assert network.nodes[1].counters().rx_bytes - received < 10_000


@pytest.mark.timing
def test_cross_traffic_that_finds_no_room_is_named(substrate: str, directory: Path) -> None:
    """Twice what its own link carries."""
    for network in opened(crossed("80 Mbit", until="60 s"), substrate, directory):
        with network.play() as player:
            time.sleep(1.5)
        (named,) = player.crowded
        assert named.startswith("a: ")
        assert "% of the cross-traffic" in named
        assert 40 < float(named.split()[1]) < 75


def test_an_unknown_substrate_or_engine_is_bad_input(directory: Path) -> None:
    for wrong in ({"substrate": "vmware"}, {"engine": "magic"}):
        with (
            pytest.raises(InputError, match="allowed: auto"),
            open_network(pair(), run_id="test", directory=directory, **wrong),  # type: ignore[arg-type]  # on purpose
        ):
            pass
