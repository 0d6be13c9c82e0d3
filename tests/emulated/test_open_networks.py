"""Networks that stay open for anybody's programs: on both substrates, by the command line and by the holder."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.emulated.cleanup import sweep
from netsim.emulated.held.client import HeldNetwork, find_held, held_networks, hold
from netsim.emulated.node.capture import file_header, record
from netsim.emulated.owner import owner_of
from netsim.emulated.substrates.gpus import chosen_gpus, device_files, gpus_of_sites, host_gpus
from netsim.emulated.traffic_counts import DownlinkCounts, LinkCounts, TrafficCounts, link_rates, prometheus_text
from netsim.errors import HostError, InputError, LinkError, LonghaulError
from netsim.library import ROOT
from tests.emulated.networks import eventually, need, processes_of

TOPOLOGY = """
name: pair
defaults: {up: 40 Mbit, down: 40 Mbit, delay: 15 ms}
sites: {a: {}, b: {}}
"""
EACH = [pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)]
PATH = {"PATH": os.environ["PATH"]}
ETHERTYPE_IPV4 = b"\x08\x00"


def hold_pair(folder: Path, substrate: str, name: str, seconds: float = 300.0) -> HeldNetwork:
    need(substrate)
    file = folder / "pair.yaml"
    file.write_text(TOPOLOGY)
    return hold(file, name=f"{name}-{substrate}", seconds=seconds, substrate=substrate, engine="nfqueue")


@pytest.fixture(scope="module", params=EACH)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldNetwork]:
    held = hold_pair(tmp_path_factory.mktemp("held"), request.param, "test")
    yield held
    held.end()
    assert not held.directory.exists()


def printed(network: HeldNetwork, site: str, *argv: str) -> tuple[int, str]:
    """Exit code and output of a program at a site."""
    reader, writer = os.pipe()
    with Path(os.devnull).open("rb") as null, os.fdopen(reader) as output:
        status = network.execute(site, argv, PATH, (null.fileno(), writer, writer))
        os.close(writer)
        return status, output.read()


def command(*words: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "longhaul", "wan", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


def test_a_program_runs_at_its_site_and_its_status_comes_back(network: HeldNetwork) -> None:
    assert printed(network, "a", "sh", "-c", "echo $((6 * 7)); exit 3") == (3, "42\n")
    assert printed(network, "a", "sh", "-c", "kill -9 $$")[0] == -signal.SIGKILL
    with pytest.raises(LonghaulError, match="No such file"):
        printed(network, "a", "/no/such/program")
    with pytest.raises(InputError, match="one of a, b"):
        printed(network, "c", "true")


@pytest.mark.timing
def test_the_command_line_reaches_a_site_by_its_name(network: HeldNetwork) -> None:
    assert network.name in command("list")
    output = command("exec", "a", "-n", network.name, "--", "ping", "-U", "-c", "3", "-i", "0.2", "@b")
    found = re.search(r"min/avg/max/\w+ = ([\d.]+)", output)
    assert found is not None
    assert 30 <= float(found[1]) < 35
    output = command("exec", "--all", "-n", network.name, "--", "sh", "-c", "echo at $LONGHAUL_SITE; exit 4", code=4)
    assert sorted(output.splitlines()) == ["a | at a", "b | at b"]
    assert "found 'c'" in command("exec", "c", "-n", network.name, "--", "true", code=2)


@pytest.mark.timing
def test_a_link_changes_while_it_is_used(network: HeldNetwork) -> None:
    command("set", "a:b", "delay=40ms", "-n", network.name)
    found = re.search(
        r"min/avg/max/\w+ = ([\d.]+)", printed(network, "b", "ping", "-U", "-c", "2", address(network, "a"))[1]
    )
    assert found is not None
    assert 80 <= float(found[1]) < 85
    assert network.check(short=True)["links"][0]["rtt_ms_asked"] == pytest.approx(80)
    network.change({"between": ["a", "b"], "delay": "15 ms"})
    with pytest.raises(InputError, match="sites of this file: a, b"):
        network.change({"between": ["a", "z"], "delay": "15 ms"})


def address(network: HeldNetwork, site: str) -> str:
    return network.site(site).wan


def test_counts_are_those_of_what_was_sent(network: HeldNetwork) -> None:
    before = network.traffic()
    sender = "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); "
    sender += "[s.sendto(b'x'*958,(sys.argv[1],9)) for _ in range(20)]"
    assert printed(network, "a", sys.executable, "-S", "-c", sender, address(network, "b"))[0] == 0
    assert eventually(lambda: network.traffic().links[0].packets >= before.links[0].packets + 20)
    (rate,) = [rate for rate in link_rates(before, network.traffic()) if rate.source == "a"]
    assert rate.bit_per_second > 0
    after = network.traffic().links[0]
    assert after.bytes - before.links[0].bytes == 20 * 1000
    assert "longhaul_link_bytes_total{" in command("stats", "--prometheus", "-n", network.name)


def test_what_passes_a_link_is_captured(network: HeldNetwork, tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    with file.open("wb") as output:
        threading.Thread(target=network.capture, args=("a", output.fileno()), daemon=True).start()
        assert eventually(lambda: file.stat().st_size >= 24)
        printed(network, "a", "ping", "-c", "1", "-s", "77", address(network, "b"))
        assert eventually(lambda: len(ipv4_packets(file.read_bytes())) >= 2)
    assert [len(packet) for packet in ipv4_packets(file.read_bytes())][:2] == [77 + 42, 77 + 42]


def ipv4_packets(data: bytes) -> list[bytes]:
    """The IPv4 packets of a capture file, in order: a kernel's own IPv6 (multicast reports) comes when it likes."""
    assert data[:24] == file_header(65535)
    found, at = [], 24
    while at + 16 <= len(data):
        _, _, kept, _ = struct.unpack_from("=IIII", data, at)
        found.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return [frame for frame in found if frame[12:14] == ETHERTYPE_IPV4]


def test_a_program_ends_with_its_caller(network: HeldNetwork) -> None:
    words = ["exec", "a", "-n", network.name, "--", "sleep", "987"]
    caller = subprocess.Popen([sys.executable, "-m", "longhaul", "wan", *words], cwd=ROOT)
    owner = str(owner_of(network.directory))
    assert eventually(lambda: any(sleeps(process) for process in processes_of(owner)))
    caller.kill()
    caller.wait()
    assert eventually(lambda: not any(sleeps(process) for process in processes_of(owner)))


def sleeps(process: int) -> bool:
    try:
        return b"987" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


@pytest.mark.parametrize("substrate", EACH)
def test_nothing_is_left_of_a_holder_that_was_killed(substrate: str, tmp_path: Path) -> None:
    held = hold_pair(tmp_path, substrate, "doomed")
    owner = str(owner_of(held.directory))
    os.kill(held.holder, signal.SIGKILL)
    assert eventually(lambda: held.name not in [network.name for network in held_networks()])
    assert eventually(lambda: not list(processes_of(owner)), 20)
    sweep(containers=substrate == "docker")
    assert not held.directory.exists()
    with pytest.raises(LinkError, match="open no longer"):
        held.traffic()


@pytest.mark.root
def test_a_network_ends_when_its_time_is_over(tmp_path: Path) -> None:
    held = hold_pair(tmp_path, "netns", "short", seconds=1.0)
    assert eventually(lambda: not held.directory.exists(), 20)
    with pytest.raises(InputError, match="--name"):
        find_held(held.name)


def test_rates_are_differences_over_time() -> None:
    def counts(at: float, sent: int) -> TrafficCounts:
        link = LinkCounts("a", "b", sent, sent // 100, sent // 1000, 7, 1, 0)
        return TrafficCounts(at, (link,), (DownlinkCounts("b", sent, 1, 0, 0, 0),))

    (rate,) = link_rates(counts(1.0, 1000), counts(3.0, 6000))
    assert (rate.bit_per_second, rate.packets_per_second, rate.drops) == (20_000, 25, 5)
    assert TrafficCounts.from_json(counts(1.0, 10).to_json()) == counts(1.0, 10)
    lines = prometheus_text(counts(1.0, 1000), "net").splitlines()
    assert 'longhaul_link_bytes_total{network="net",source="a",target="b"} 1000' in lines
    assert 'longhaul_downlink_packets_total{network="net",site="b"} 1' in lines
    assert lines.count("# TYPE longhaul_link_queue_bytes gauge") == 1


def test_a_captured_packet_says_how_long_it_was() -> None:
    seconds, nanoseconds, kept, length = struct.unpack_from("=IIII", record(5, 6, b"abc", 1500))
    assert (seconds, nanoseconds, kept, length) == (5, 6, 3, 1500)


def test_sites_share_the_gpus_that_there_are(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert host_gpus(tmp_path) == ("0", "1", "10")
    assert chosen_gpus("auto", tmp_path) == ("0", "1", "10")
    assert chosen_gpus("10,0", tmp_path) == ("10", "0")
    assert device_files(("1",), tmp_path) == [str(tmp_path / name) for name in ("nvidia1", "nvidiactl", "nvidia-uvm")]
    assert device_files((), tmp_path) == []
    assert gpus_of_sites(("0", "1", "2", "3", "4"), ["a", "b"]) == {"a": "0,1", "b": "2,3"}
    assert gpus_of_sites(("0", "1"), ["a", "b", "c"]) == {"a": "0", "b": "1", "c": "0"}
    assert gpus_of_sites((), ["a"]) == {"a": ""}
    with pytest.raises(HostError, match="no GPU 7"):
        chosen_gpus("7", tmp_path)
    with pytest.raises(InputError, match="numbers like 0,1"):
        chosen_gpus("two", tmp_path)
