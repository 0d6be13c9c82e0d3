"""Least privilege, read from a running container: the trainer can train, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netsim.emulated.network import Network, open_network
from tests.emulated.networks import need, pair

pytestmark = pytest.mark.docker
MEMORY = 600 * 10**6

LOOK = """
import json, os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
def can_write(path):
    try:
        open(path + "/probe", "w").close()
        return True
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
print(json.dumps({
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")],
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "writable": [p for p in ("/", "/usr", "/etc", "/bin", "/root") if can_write(p)],
    "routes": [l.split()[1] for l in open("/proc/net/route").read().splitlines()[1:]],
    "outside": reaches("192.0.2.1"), "may_shape": shapes(),
    "socket": os.path.exists("/var/run/docker.sock"),
}))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    need("docker")
    directory = tmp_path_factory.mktemp("run")
    directory.chmod(0o777)
    with open_network(
        pair(), run_id="privilege", directory=directory, substrate="docker", engine="nfqueue", memory=MEMORY
    ) as found:
        yield found


@pytest.fixture(scope="module")
def seen(network: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program sees that is started as a trainer is."""
    log = network.nodes[0]._directory / "look.log"
    process = network.nodes[0].start([sys.executable, "-S", "-c", LOOK], {}, log)
    assert process.wait(60) == 0, log.read_text()
    found: dict[str, Any] = json.loads(Path(log).read_text())
    return found


@pytest.fixture(scope="module")
def container(network: Network) -> dict[str, Any]:
    import docker

    client = docker.from_env()
    running = client.containers.list(filters={"label": "longhaul.run=privilege"})
    found: dict[str, Any] = next(one for one in running if str(one.name).endswith("-a")).attrs
    client.close()
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


def test_the_trainer_has_no_route_out_and_cannot_touch_its_links(seen: dict[str, Any]) -> None:
    assert "00000000" not in seen["routes"]
    assert "unreachable" in seen["outside"]
    assert not seen["may_shape"]
    assert not seen["socket"]


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
