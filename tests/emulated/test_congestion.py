"""Congestion control is pinned per node, whatever the host's default and its list of allowed ones, root or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netsim.emulated.network import open_network
from netsim.errors import HostError, LonghaulError
from netsim.library import ROOT
from tests.emulated.networks import need, pair

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")

ANSWER = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print("listening", flush=True)
    with server.accept()[0] as one:
        print(one.getsockopt(socket.IPPROTO_TCP, 13, 16).rstrip(bytes(1)).decode(), flush=True)
"""
ASK = """
import socket, sys, time
for _ in range(100):
    try:
        with socket.create_connection((sys.argv[1], 5000), 5) as one:
            print(one.getsockopt(socket.IPPROTO_TCP, 13, 16).rstrip(bytes(1)).decode(), flush=True)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""
BOTH_ENDS = f"""
import sys
from pathlib import Path
from netsim.emulated.network import open_network
from tests.emulated.networks import pair
folder = Path(sys.argv[1])
topology = pair(transport={{"congestion_control": "cubic"}})
with open_network(topology, run_id="test", directory=folder, substrate="netns", engine="nfqueue") as network:
    address = network.nodes[1].wan_address
    ends = [
        network.nodes[site].start([sys.executable, "-S", "-c", program, address], {{}}, folder / f"{{site}}.log")
        for site, program in ((1, {ANSWER!r}), (0, {ASK!r}))
    ]
    assert [end.wait(20) for end in ends] == [0, 0]
    network.verify()
"""


@pytest.mark.root
@pytest.mark.timing  # it changes what every connection of this host may use
@pytest.mark.skipif("cubic" not in AVAILABLE, reason="this kernel has no cubic")
@pytest.mark.parametrize("become", [[], ["unshare", "-Ur"]], ids=["root", "user-namespace"])
def test_both_ends_of_a_connection_use_what_is_pinned(tmp_path: Path, become: list[str]) -> None:
    """On a host whose list of allowed ones lacks it too, where a namespace's default may not be set to it."""
    need("netns")
    before = ALLOWED.read_text()
    ALLOWED.write_text("reno")
    try:
        done = subprocess.run(
            [*become, sys.executable, "-c", BOTH_ENDS, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        ALLOWED.write_text(before)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0.log").read_text().split() == ["cubic"]
    assert (tmp_path / "1.log").read_text().split() == ["listening", "cubic"]


@pytest.mark.root
@pytest.mark.skipif("bbr" in AVAILABLE, reason="this kernel has every congestion control that a topology may name")
def test_one_that_the_kernel_lacks_is_one_error_with_its_remedy(tmp_path: Path) -> None:
    need("netns")
    with (
        pytest.raises((HostError, LonghaulError), match="modprobe tcp_bbr"),
        open_network(pair(transport={"congestion_control": "bbr"}), run_id="t", directory=tmp_path, substrate="netns"),
    ):
        pass
