"""Whatever is killed, nothing of a run remains; and live runs of others are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.emulated.cleanup import sweep
from netsim.emulated.network import open_network
from netsim.emulated.owner import LABEL, Owner, boot, runtime_root
from netsim.library import ROOT
from tests.emulated.networks import command_of, eventually, need, pair, processes_of

RUNNER = """
import json, sys, time
from pathlib import Path
from netsim.emulated.network import open_network
from netsim.emulated.owner import Owner
from tests.emulated.networks import pair
where, substrate = Path(sys.argv[1]), sys.argv[2]
with open_network(pair(), run_id="doomed", directory=where, substrate=substrate, engine="nfqueue") as network:
    network.nodes[0].start(["/bin/sh", "-c", "sleep 300 & sleep 300"], {}, where / "program.log")
    report = network.check(short=True)
    said = {"owner": str(Owner.this()), **report.to_json(), "problems": report.problems()}
    print(json.dumps(said), flush=True)
    time.sleep(300)
"""


@pytest.fixture(
    params=[pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)]
)
def substrate(request: pytest.FixtureRequest) -> str:
    need(str(request.param))
    return str(request.param)


class Doomed:
    """A runner of its own, with a network that stands and a program that runs."""

    def __init__(self, directory: Path, substrate: str, prefix: tuple[str, ...] = ()) -> None:
        directory.chmod(0o777)
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", RUNNER, str(directory), substrate],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.said = json.loads(line)
        self.owner: str = self.said["owner"]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def processes(self) -> list[int]:
        return list(processes_of(self.owner))

    def named(self, name: str) -> int:
        return next(process for process in self.processes() if command_of(process) == name)


@pytest.fixture
def doomed(tmp_path: Path, substrate: str) -> Iterator[Doomed]:
    runner = Doomed(tmp_path, substrate)
    yield runner
    runner.kill()


def left_of(owner: str, substrate: str) -> list[str]:
    """Everything on this host that carries the owner's mark."""
    found = [f"process {process} {command_of(process)}" for process in processes_of(owner)]
    if runtime_root().is_dir():
        found += [entry.name for entry in runtime_root().iterdir() if entry.name.startswith(owner)]
    if substrate == "docker":
        import docker

        client = docker.from_env()
        mark = f"{LABEL}={owner}"
        left = client.containers.list(all=True, filters={"label": mark}, ignore_removed=True)
        found += [str(one.name) for one in left]
        found += [str(one.name) for one in client.networks.list(filters={"label": mark})]
        client.close()
    return found


def test_what_a_killed_runner_started_ends_by_itself(doomed: Doomed, substrate: str) -> None:
    """Networks and directories, too, before any sweep."""
    doomed.kill()
    assert eventually(lambda: left_of(doomed.owner, substrate) == [], 20), left_of(doomed.owner, substrate)


def test_cleaning_removes_all_that_a_killed_runner_left(doomed: Doomed, substrate: str) -> None:
    """A killed runner leaves nothing that cleaning does not remove."""
    assert doomed.said["passed"], doomed.said["problems"]
    assert len(doomed.processes()) > 8
    doomed.kill()
    # What runs ends by itself, children of programs too.
    assert eventually(lambda: doomed.processes() == [], 20)
    sweep(containers=substrate == "docker")
    assert left_of(doomed.owner, substrate) == []


@pytest.mark.parametrize("victim", ["longhaul-agent", "delay daemon", "prober"])
def test_what_outlives_its_killed_part_goes_with_its_runner(doomed: Doomed, substrate: str, victim: str) -> None:
    os.kill(doomed.named(victim), signal.SIGKILL)
    doomed.kill()
    assert eventually(lambda: doomed.processes() == [], 20)
    sweep(containers=substrate == "docker")
    assert left_of(doomed.owner, substrate) == []


@pytest.mark.docker
def test_a_killed_container_is_noticed_and_leaves_nothing(tmp_path: Path) -> None:
    need("docker")
    import docker

    from netsim.errors import LinkError

    tmp_path.chmod(0o777)
    owner = str(Owner.this())
    client = docker.from_env()
    with open_network(pair(), run_id="test", directory=tmp_path, substrate="docker", engine="nfqueue") as network:
        containers = client.containers.list(filters={"label": f"{LABEL}={owner}"})
        assert len(containers) == 2
        containers[0].kill()
        assert eventually(lambda: len(client.containers.list(filters={"label": f"{LABEL}={owner}"})) == 1)
        with pytest.raises(LinkError):
            network.verify()
    client.close()
    assert left_of(owner, "docker") == []


def test_leaving_the_network_removes_it(tmp_path: Path, substrate: str) -> None:
    tmp_path.chmod(0o777)
    owner = str(Owner.this())
    with open_network(pair(), run_id="test", directory=tmp_path, substrate=substrate, engine="nfqueue"):
        assert left_of(owner, substrate) != []
    assert left_of(owner, substrate) == []


def test_cleaning_leaves_live_runs_alone(tmp_path: Path, substrate: str) -> None:
    tmp_path.chmod(0o777)
    with open_network(pair(), run_id="test", directory=tmp_path, substrate=substrate, engine="nfqueue") as network:
        sweep(containers=substrate == "docker")
        network.verify()


def test_an_owner_whose_number_another_process_has_is_dead() -> None:
    """An owner is dead when its number belongs to another process."""
    own = Owner.this()
    assert own.alive
    assert not Owner(own.boot, own.pid, own.started + 1).alive
    assert not Owner("another-boot", own.pid, own.started).alive
    assert Owner.parse(str(own)) == own
    assert Owner.parse("nonsense") is None
    assert own.boot == boot()


ROOTLESS = """
mount -t tmpfs -o mode=755 none /mnt
for path in "$@"; do mkdir -p "/mnt$path"; mount --bind "$path" "/mnt$path"; done
mount -t tmpfs -o mode=755 none /root
for path in "$@"; do mkdir -p "$path"; mount --bind "/mnt$path" "$path"; done
"""


@pytest.mark.root
def test_an_ordinary_user_gets_a_network_in_a_user_namespace(tmp_path: Path) -> None:
    need("netns")
    if os.geteuid() != 0:
        pytest.skip("this user is not root already: every other test of netns has shown it")
    # An interpreter in root's home directory is shown to the user in a private view of the file system.
    seen = {path for path in (sys.base_prefix, sys.prefix, str(ROOT)) if Path(path).is_relative_to("/root")}
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:  # pytest-xdist puts one more of them between
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    become = "exec nice -n 1 setpriv --reuid=65534 --regid=65534 --clear-groups"  # who cannot take back a `nice` either
    script = (ROOTLESS if seen else "") + become + ' "$PROGRAM" -c "$SCRIPT" "$WHERE" netns'
    runner = subprocess.Popen(
        ["unshare", "-m", "sh", "-ec", script, "sh", *sorted(seen)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PROGRAM": sys.executable,
            "SCRIPT": RUNNER,
            "WHERE": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert runner.stdout is not None
        line = runner.stdout.readline()
        assert line, runner.communicate()[1]
        said = json.loads(line)
        # Such a user gets no real-time priority, so on a busy host packets come late; they never come early.
        assert [problem for problem in said["problems"] if "RTT" not in problem] == []
        assert all(link["rtt_ms"] >= 30 for link in said["links"])
        agents = [process for process in processes_of(said["owner"]) if command_of(process) == "longhaul-agent"]
        assert len(agents) == 2
        assert {Path(f"/proc/{process}").stat().st_uid for process in agents} == {65534}
    finally:
        runner.kill()
        runner.communicate()
    assert eventually(lambda: list(processes_of(said["owner"])) == [], 20)


KILLED = """
import os
from netsim.emulated.owner import scratch
with scratch("check") as made:
    print(made, flush=True)
    os.kill(os.getpid(), 9)
"""
REMOVE = "from netsim.emulated.cleanup import _remove_directories; print(*_remove_directories())"


def test_the_directory_of_a_killed_check_is_removed() -> None:
    with tempfile.TemporaryDirectory(prefix="lh-") as place:  # short: it is the root of sockets' paths
        environment = {**os.environ, "TMPDIR": place, "PYTHONPATH": str(ROOT)}

        def run(code: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", code]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        killed = run(KILLED)
        left = Path(killed.stdout.strip())
        assert (killed.returncode, left.is_dir(), left.is_relative_to(place)) == (-9, True, True)
        assert run(REMOVE).stdout.split() == [left.name]
        assert not left.exists()
