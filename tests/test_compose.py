"""compose.yaml: what it promises, read from the file; and a suite on the containers that it brings up, for real."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.run_record import read_json, read_run
from netsim.emulated.compile import CORE_NODE, FORWARDING, sysctls
from netsim.emulated.network import resolve
from netsim.emulated.substrates.capabilities import container_engine
from netsim.emulated.substrates.compose_nodes import seats
from netsim.emulated.substrates.launch import FIRST_USER
from netsim.errors import HostError
from netsim.links import Transport
from netsim.topology import find_topology, load_topology

ROOT = Path(__file__).parent.parent
SITES = ("virginia", "ohio", "london", "frankfurt")
NODES = (*SITES, "core")
REALTIME = Path("/sys/fs/cgroup/cpu")


def services(name: str = "compose.yaml") -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text())["services"])


def default(text: str) -> str:
    """A setting with every ${VARIABLE:-default} as its default."""
    while "${" in text:
        before, _, rest = text.partition("${")
        variable, _, after = rest.partition("}")
        text = before + variable.partition(":-")[2] + after
    return text


@pytest.mark.parametrize("name", ["compose.yaml", "compose.host.yaml", "compose.realtime.yaml"])
def test_compose_files_declare_no_version(name: str) -> None:
    """The files declare no version which compose 2 calls obsolete."""
    assert "version" not in yaml.safe_load((ROOT / name).read_text())


def test_services_are_transatlantic_sites_a_core_and_a_runner() -> None:
    topology = load_topology(find_topology("transatlantic", ROOT))
    assert tuple(site.name for site in topology.sites) == SITES
    assert set(services()) == {*NODES, "runner"}
    assert all(services()[site]["hostname"] == site for site in SITES)
    assert services()["core"]["hostname"] == CORE_NODE
    assert set(services("compose.host.yaml")) == set(services())


def test_compose_sites_have_the_default_kernel_settings() -> None:
    """Sites are made with the kernel settings that a topology asks by default."""
    for site in SITES:
        made = {key: default(value) for key, value in services()[site]["sysctls"].items()}
        assert made == sysctls(Transport(), "netem")  # which needs all that nfqueue needs
    forwards = {key: default(value) for key, value in services()["core"]["sysctls"].items()}
    assert forwards == {**sysctls(Transport(), "core"), **FORWARDING}


def test_compose_sites_have_the_capabilities_of_docker_nodes() -> None:
    """Sites have the capabilities of the docker substrate and the runner none over a network."""
    from netsim.emulated.substrates.docker_nodes import CAPABILITIES

    for site in NODES:
        assert services()[site]["cap_drop"] == ["ALL"]
        assert services()[site]["cap_add"] == CAPABILITIES
    runner = services()["runner"]
    assert runner["cap_drop"] == ["ALL"]
    assert runner["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
    assert runner["network_mode"] == "none"


def test_services_see_no_engine_and_have_read_only_roots() -> None:
    """No service sees the engine and every root file system is read only."""
    for service in services().values():
        assert service["read_only"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not any("docker.sock" in volume for volume in service["volumes"])


def test_a_site_takes_its_named_container_or_a_free_one() -> None:
    """A site is played by the container of its name or by one that is free."""
    assert seats(["london", "ohio"], ["ohio", "virginia", "london"]) == {"london": "london", "ohio": "ohio"}
    assert seats(["paris", "ohio"], ["ohio", "virginia", "london"]) == {"paris": "london", "ohio": "ohio"}
    assert seats(["paris", "ohio"], ["ohio"]) is None


def test_core_links_are_played_by_their_own_container_alone() -> None:
    assert seats(["paris", CORE_NODE], ["ohio", CORE_NODE]) == {"paris": "ohio", CORE_NODE: CORE_NODE}
    assert seats(["paris"], [CORE_NODE]) is None
    assert seats(["paris", CORE_NODE], ["ohio", "london"]) is None


def test_the_compose_substrate_needs_the_compose_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compose substrate says that it is for the runner of compose."""
    monkeypatch.delenv("LONGHAUL_MEETING", raising=False)
    with pytest.raises(HostError, match="LONGHAUL_MEETING"):
        resolve("compose", "auto")


def compose_command() -> list[str]:
    """Compose 2 where the engine's client has it, else Compose 1."""
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if found.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


def reason_to_skip() -> str:
    if not container_engine():
        return "no Docker engine answers"
    if not compose_command():
        return "neither `docker compose` nor docker-compose is installed"
    if os.geteuid() != 0:
        return "needs root to let containers use cubic, and real-time on hosts that divide it"
    if sys.prefix == sys.base_prefix:
        return "needs a virtual environment that can be mounted"
    if not Path("/lib").is_symlink():
        return "compose.host.yaml needs a merged /usr"
    return ""


TRAIN: dict[str, Any] = {"steps": 6, "batch": 2, "warmup": 2, "evaluate_every": 3, "evaluation_sequences": 8}
SMALL: dict[str, Any] = {
    "name": "small",
    "model": "tiny",
    "train": TRAIN,
    "methods": ["ddp", {"method": "diloco", "options": {"sync_every": 3}}],
    "topologies": ["transatlantic"],
}


def pair(name: str, **transport: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Two sites that no container is named after.",
        "source": "made up",
        "defaults": {"up": "50 Mbit", "down": "50 Mbit"},
        "transport": transport,
        "sites": {"oslo": {}, "quito": {}},
        "links": [{"between": ["oslo", "quito"], "delay": "20 ms"}],
    }


OTHERS = {
    **SMALL,
    "name": "others",
    "methods": ["ddp"],
    "topologies": [pair("pair"), pair("unlike", congestion_control="reno", buffer="32 MB")],
}


DUMBBELL = {
    "name": "dumbbell",
    "defaults": {"up": "50 Mbit", "down": "50 Mbit", "delay": "10 ms"},
    "sites": {"oslo": {}, "quito": {}, "london": {}},
    "core": [{"name": "middle", "between": [["oslo", "quito"], ["london"]], "rate": "10 Mbit", "queue": "50 ms"}],
}


@dataclass(frozen=True)
class Project:
    """A Compose project of its own, in directories of its own."""

    name: str
    folder: Path
    files: tuple[str, ...]

    def __call__(self, *arguments: str, suite: str = "small") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "LONGHAUL_HOST_IMAGE": self.name,
            "LONGHAUL_VENV": sys.prefix,
            "LONGHAUL_SUITE": f"suites/{suite}.yaml",
            "LONGHAUL_SUITES": str(self.folder / "suites"),
            "LONGHAUL_RUNS": str(self.folder / "runs"),
            "LONGHAUL_REPORT": str(self.folder / "report"),
        }
        if not Path(sys.base_prefix).is_relative_to("/usr"):
            environment["LONGHAUL_PYTHON"] = sys.base_prefix
        files = [word for name in self.files for word in ("-f", str(ROOT / name))]
        command = [*compose_command(), "-p", self.name, *files, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)

    def check(self, topology: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "longhaul", "wan", "check", topology, "--substrate", "compose", "--json"]
        return self("run", "--rm", "-T", "--entrypoint", "python", "runner", *command)

    def run(self, suite: str) -> subprocess.CompletedProcess[str]:
        return self("up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "runner", suite=suite)

    def left(self) -> list[str]:
        """Everything that the engine still holds of this project."""
        import docker

        client = docker.from_env()
        try:
            mine: dict[str, Any] = {"label": f"com.docker.compose.project={self.name}"}
            found = [str(container.name) for container in client.containers.list(all=True, filters=mine)]
            found += [str(network.name) for network in client.networks.list(filters=mine)]
            found += [str(volume.name) for volume in client.volumes.list(filters=mine)]
            return [*found, *(str(image.id) for image in client.images.list(self.name))]
        finally:
            client.close()

    def remove(self) -> list[str]:
        """Removes everything, and names the networks that the engine keeps for containers which it does not have.

        Engines to 20.10, and perhaps later ones, may count an endpoint too many when several containers end at once
        ("Fixing inconsistent endpoint_cnt", they say when they start again). `down` gives up at such a network.
        """
        import docker

        down = self("down", "--volumes", "--rmi", "all")
        client = docker.from_env()
        try:
            mine: dict[str, Any] = {"label": f"com.docker.compose.project={self.name}"}
            if down.returncode:
                assert "active endpoints" in down.stderr, down.stderr
                for volume in client.volumes.list(filters=mine):
                    volume.remove()
                client.images.remove(self.name)
            return [str(network.name) for network in client.networks.list(filters=mine) if miscounted(network)]
        finally:
            client.close()


def miscounted(network: Any) -> bool:
    """Whether the engine refuses to remove it although no container is attached to it."""
    from docker.errors import APIError

    try:
        network.remove()
    except APIError:
        network.reload()
        return not network.containers
    return False


@contextmanager
def realtime() -> Iterator[bool]:
    """Lets the engine's containers have real-time priorities, where control groups keep these from them."""
    import docker

    client = docker.from_env()
    driver = client.info()["CgroupDriver"]
    client.close()
    if driver != "cgroupfs" or not (REALTIME / "cpu.rt_runtime_us").exists():
        yield False
        return
    share = REALTIME / "docker/cpu.rt_runtime_us"
    share.parent.mkdir(exist_ok=True)  # the engine makes it for its first container
    before = share.read_text()
    share.write_text("900000")
    try:
        yield True
    finally:
        share.write_text(before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "suites").mkdir()
    for suite in (SMALL, OTHERS):
        (folder / "suites" / f"{suite['name']}.yaml").write_text(yaml.safe_dump(suite))
    (folder / "suites" / "dumbbell.yaml").write_text(yaml.safe_dump(DUMBBELL))
    with realtime() as divided:
        files = ("compose.yaml", "compose.host.yaml", *(["compose.realtime.yaml"] if divided else []))
        made = Project(f"longhaul-test-{os.getpid()}", folder, files)
        try:
            up = made("up", "-d", *NODES)
            assert up.returncode == 0, up.stderr
            yield made
        finally:
            kept = made.remove()
        assert made.left() == kept


on_an_engine = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip()),
    pytest.mark.timeout(450),
]


class TestOnAnEngine:
    pytestmark = on_an_engine

    def test_a_suite_completes_on_four_containers(self, project: Project) -> None:
        done = project.run("small")
        assert done.returncode == 0, done.stdout
        runs = [read_run(path.parent) for path in sorted((project.folder / "runs/small").glob("*/result.json"))]
        assert [run.result.algorithm for run in runs] == ["ddp", "diloco"]
        for run in runs:
            assert run.result.valid, run.result.why_invalid
            assert run.result.substrate == "compose"
            assert run.result.sites == 4
            assert run.result.payload_bytes_per_worker == run.result.planned_payload_bytes_per_worker > 0
        assert (project.folder / "report/small/index.html").is_file()
        for links in (project.folder / "runs/small").glob("*/links.json"):
            found = json.loads(links.read_text())
            assert found["before"]["passed"]
            assert found["after"]["passed"]

    def test_each_sites_trainer_is_a_user_of_its_own(self, project: Project) -> None:
        written = list((project.folder / "runs/small").glob("*/rank-*/summary.json"))
        assert len(written) == 8
        users = {(path.parent.name, path.stat().st_uid) for path in written}
        assert users == {(f"rank-{rank}", FIRST_USER + rank) for rank in range(4)}

    def test_other_kernel_settings_are_refused(self, project: Project) -> None:
        # A first run ended with all containers stopped; they start again as they were made.
        assert project("start", *NODES).returncode == 0
        done = project.run("others")
        assert done.returncode == 1, done.stdout
        assert "LONGHAUL_TCP_BUFFER" in done.stdout
        (result,) = (project.folder / "runs/others").glob("*/result.json")
        assert read_run(result.parent).result.valid
        played_by = read_json(result.parent / "environment.json")["network"]["containers"]
        assert len(set(played_by) & set(SITES)) == 2

    def test_sites_share_a_core_link_and_are_bare_after_it(self, project: Project) -> None:
        assert project("start", *NODES).returncode == 0
        done = project.check("suites/dumbbell.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        links = {(link["source"], link["target"]): link for link in json.loads(done.stdout)["links"]}
        across = [link for pair, link in links.items() if "london" in pair]
        within = [links[pair] for pair in (("oslo", "quito"), ("quito", "oslo"))]
        assert [link["goodput_mbit"] for link in across] == pytest.approx([9.56] * 4, rel=0.03)
        assert [link["goodput_mbit"] for link in within] == pytest.approx([47.8] * 2, rel=0.03)
        again = project.check("suites/dumbbell.yaml")  # on the containers that the first network was taken off
        assert again.returncode == 0, again.stdout + again.stderr
