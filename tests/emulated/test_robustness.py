"""What once ended a helper of a node silently: devices that go down, stalls, events that fail, long paths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.emulated.network import Network, open_network
from netsim.emulated.node.devices import tool
from netsim.emulated.node.requests import Echo
from netsim.emulated.owner import Owner
from netsim.emulated.timeline_player import TimelinePlayer
from netsim.errors import LinkError
from netsim.library import ROOT
from netsim.timeline import WorkerEvent
from netsim.topology import Topology
from tests.emulated.networks import PAIR, command_of, need, pair, processes_of

pytestmark = pytest.mark.root


def opened(topology: Topology, directory: Path) -> Iterator[Network]:
    need("netns")
    with open_network(topology, run_id="test", directory=directory, substrate="netns", engine="nfqueue") as network:
        yield network


def processes(name: str) -> list[int]:
    """Those of this test's network, in the order of the sites."""
    return sorted(process for process in processes_of(str(Owner.this())) if command_of(process) == name)


def inside(agent: int, *argv: str) -> None:
    enter = [tool("nsenter"), "-t", str(agent), "-n"]
    subprocess.run([*enter, tool(argv[0]), *argv[1:]], check=True, capture_output=True)


def test_a_device_that_goes_down_under_way_ends_nothing(tmp_path: Path) -> None:
    """The kernel drops the waiting packets, and answers the verdicts that still come with error messages."""
    jittery = {**PAIR["defaults"], "delay": "300 ms", "jitter": {"spread": "10 ms", "reorder": True}}
    for network in opened(pair(defaults=jittery), tmp_path):
        agent = processes("longhaul-agent")[1]
        future = network._links[0].request(Echo((network.nodes[1].wan_address,), 40, 0.005, 1.5))
        time.sleep(0.3)
        inside(agent, "ip", "link", "set", "wan0", "down")
        time.sleep(0.5)
        inside(agent, "ip", "link", "set", "wan0", "up")
        future.result(10)
        assert len(processes("delay daemon")) == 2
        assert any(took for _, took in network.echo("a", "b", count=5, interval=0.1))
        # The kernel made the route anew, without what was pinned to it, and that is noticed.
        with pytest.raises(LinkError, match="congestion control"):
            network.verify()


def test_a_stalled_daemon_releases_any_number_of_packets(tmp_path: Path) -> None:
    slow = {**PAIR["defaults"], "delay": "1 s", "jitter": {"spread": "1 ms", "reorder": True}}
    for network in opened(pair(defaults=slow), tmp_path):
        daemons = processes("delay daemon")
        future = network._links[0].request(Echo((network.nodes[1].wan_address,), 9000, 0.0001, 6.0))
        time.sleep(0.95)
        for daemon in daemons:
            os.kill(daemon, signal.SIGSTOP)
        time.sleep(1.5)
        for daemon in daemons:
            os.kill(daemon, signal.SIGCONT)
        answered = [took for _, took in future.result(60).echoes[0] if took is not None]
        assert processes("delay daemon") == daemons
        assert len(answered) > 100  # the echo server's buffer holds no more of a burst


def test_an_error_in_the_timeline_reaches_the_caller(tmp_path: Path) -> None:
    def fails(incident: WorkerEvent) -> None:
        raise TypeError("not ours")

    events = [{"at": "0.1 s", "crash": {"site": "a"}}]
    for network in opened(pair(timeline=events), tmp_path):
        with network.play(fails) as player:
            time.sleep(0.5)
        assert isinstance(player, TimelinePlayer)
        assert "TypeError: not ours" in str(player.error)


def test_a_long_temporary_directory_opens_networks_too(tmp_path: Path) -> None:
    need("netns")
    long = tmp_path / ("x" * 80)
    long.mkdir()
    program = (
        "from pathlib import Path\n"
        "from netsim.emulated.network import open_network\n"
        "from tests.emulated.networks import pair\n"
        f"with open_network(pair(), run_id='test', directory=Path({str(tmp_path)!r}), substrate='netns') as network:\n"
        "    network.verify()\n"
    )
    environment = {**os.environ, "TMPDIR": str(long), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
