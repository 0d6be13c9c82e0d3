"""Least privilege, seen by a program in a running node: the trainer can train, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.records.files import give_folder
from netsim.emulated.network import Network, open_network
from netsim.emulated.substrates.resource_limits import HIERARCHIES
from netsim.library import ROOT
from tests.emulated.networks import need, pair

MEMORY = 600 * 10**6

LOOK = """
import json, os, socket, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
def can_write(path):
    try:
        open(path + "/probe", "w").close()
        return True
    except OSError:
        return False
def can_list(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
def reaches(address):
    try:
        socket.create_connection((address, 53), timeout=2).close()
        return "yes"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
def shapes():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    return os.system("ip link set wan0 down 2>/dev/null") == 0
processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
others = [process for process in processes if os.stat("/proc/%d" % process).st_uid != os.getuid()]
def can_signal(process):
    try:
        os.kill(process, 0)
        return True
    except OSError:
        return False
print(json.dumps({
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")],
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "writable": [p for p in ("/", "/usr", "/etc", "/bin", "/root", "/proc/sys/net", "/sys", "/dev") if can_write(p)],
    "top": sorted(os.listdir("/")),
    "routes": [l.split()[1] for l in open("/proc/net/route").read().splitlines()[1:]],
    "outside": reaches("192.0.2.1"), "may_shape": shapes(),
    "socket": os.path.exists("/var/run/docker.sock"),
    "processes": len(processes),
    "signalled": [process for process in others if can_signal(process)],
    "records": [[can_list(p), can_write(p)] for p in sys.argv[1:]],
    "devices": sorted(os.listdir("/dev")),
}))
"""


@pytest.fixture(
    scope="module",
    params=[pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)],
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    substrate = str(request.param)
    need(substrate)
    if os.geteuid() != 0:
        pytest.skip("needs root: without it programs run as the user who runs them")
    directory = tmp_path_factory.mktemp("run")
    directory.chmod(0o777)
    with open_network(
        pair(),
        run_id="privilege",
        directory=directory,
        substrate=substrate,
        engine="nfqueue",
        memory=MEMORY,
        confined=True,
    ) as found:
        for index, node in enumerate(found.nodes):
            give_folder(directory / f"rank-{index}", node.user, 0o700)
            (directory / f"rank-{index}" / "steps.jsonl").touch()
        yield found


@pytest.fixture(scope="module")
def seen(network: Network) -> dict[str, Any]:
    """What a program sees that is started as a trainer is. records: its own, and the other site's."""
    directory = network.nodes[0]._directory
    log = directory / "look.log"
    records = [str(directory / f"rank-{index}") for index in range(2)]
    process = network.nodes[0].start([sys.executable, "-S", "-c", LOOK, *records], {"PATH": os.environ["PATH"]}, log)
    assert process.wait(60) == 0, log.read_text()
    found: dict[str, Any] = json.loads(Path(log).read_text())
    return found


def test_the_trainer_has_no_capability_and_cannot_gain_one(seen: dict[str, Any]) -> None:
    effective, permitted, inheritable, ambient, _ = seen["capabilities"]
    assert (effective, permitted, inheritable, ambient) == (0, 0, 0, 0)
    assert seen["no_new_privileges"] == 1


def test_the_trainer_is_not_root(seen: dict[str, Any]) -> None:
    assert seen["uid"] != 0
    assert seen["gid"] != 0
    assert 0 not in seen["groups"]


def test_the_trainer_cannot_write_outside_the_run(seen: dict[str, Any]) -> None:
    assert seen["writable"] == []


def test_the_trainer_sees_no_file_or_process_of_the_host(seen: dict[str, Any]) -> None:
    """Of the host's files only what it needs, read-only, and no process but those of its node."""
    assert not {"home", "media", "mnt", "opt", "srv", "var"} & set(seen["top"])
    assert seen["processes"] < 10
    assert seen["signalled"] == []
    assert not {name for name in seen["devices"] if name.startswith(("sd", "vd", "nvme", "loop", "mem", "kmsg", "kvm"))}


def test_a_site_cannot_see_or_alter_anothers_record(seen: dict[str, Any]) -> None:
    own, other = seen["records"]
    assert own == [True, True]
    assert other == [False, False]


def test_sites_run_as_different_users(network: Network) -> None:
    assert len({node.user for node in network.nodes}) == len(network.nodes)


def test_the_trainer_has_no_route_out_and_cannot_touch_its_links(seen: dict[str, Any]) -> None:
    assert "00000000" not in seen["routes"]
    assert "unreachable" in seen["outside"]
    assert not seen["may_shape"]
    assert not seen["socket"]


def test_a_node_is_bound_in_memory_and_processes(network: Network) -> None:
    """On network namespaces by a control group, where the host lets us make one."""
    if network.substrate == "docker":
        pytest.skip("test_the_container_is_bound looks at the engine's own description")
    if not network._base.facts()["limited"]:
        pytest.skip("this host lets us make no control groups")
    files = [path for group in HIERARCHIES.glob("**/longhaul-*") for path in group.iterdir()]
    limits = {path.name: path.read_text().strip() for path in files if path.name in ("pids.max", "memory.max")}
    limits |= {path.name: path.read_text().strip() for path in files if path.name == "memory.limit_in_bytes"}
    assert limits.pop("pids.max") == "4096"
    (memory,) = limits.values()
    assert abs(int(memory) - MEMORY) < 4096 * 4


@pytest.fixture(scope="module")
def container(network: Network) -> dict[str, Any]:
    if network.substrate != "docker":
        pytest.skip("a container")
    import docker

    client = docker.from_env()
    running = client.containers.list(filters={"label": "longhaul.run=privilege"})
    found: dict[str, Any] = next(one for one in running if str(one.name).endswith("-a")).attrs
    client.close()
    return found


def test_the_container_is_bound(container: dict[str, Any]) -> None:
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert "SYS_ADMIN" not in host["CapAdd"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert 0 < host["PidsLimit"] <= 4096
    assert host["Memory"] == MEMORY
    assert host["PidMode"] == ""
    assert host["IpcMode"] in ("private", "")
    assert host["NetworkMode"] != "host"


def test_both_networks_are_internal(container: dict[str, Any]) -> None:
    import docker

    client = docker.from_env()
    names = list(container["NetworkSettings"]["Networks"])
    assert len(names) == 2
    assert all(client.networks.get(name).attrs["Internal"] for name in names)
    client.close()


def test_the_trainer_is_refused_system_calls_it_never_needs() -> None:
    """A user namespace would give it capabilities again, for the kernel's rarer code."""
    program = """
import ctypes, os, subprocess, sys, threading
from harness.worker.system_calls import restrict_system_calls
if not restrict_system_calls():
    sys.exit("no libseccomp")
libc = ctypes.CDLL(None, use_errno=True)
refused = [libc.unshare(0x10000000), libc.mount(b"none", b"/mnt", b"tmpfs", 0, None), libc.ptrace(0, 0, 0, 0)]
print(refused, ctypes.get_errno())
thread = threading.Thread(target=print, args=("a thread",))
thread.start()
thread.join()
print(subprocess.run(["/bin/echo", "a child"], capture_output=True, text=True).stdout)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    if "no libseccomp" in done.stderr:
        pytest.skip("libseccomp is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["[-1, -1, -1] 1", "a thread", "a child"]
