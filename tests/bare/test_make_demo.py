"""`make demo` on a bare machine: nothing but python3, python3-venv, git and make, as a new user finds it."""

from __future__ import annotations

import ast
import html
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from netsim.library import ROOT

HERE = Path(__file__).parent
# A machine of its own, with networks of its own: beside other tests, but made once.
pytestmark = [
    pytest.mark.bare,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("bare"),
]

# A fresh clone, in a path with a space.
VISIT = """
set -eu
cd "/home/new user"
git clone -q -c advice.detachedHead=false /shared/longhaul.bundle "long haul"
cd "long haul"
visit() { "$@" scripts/bootstrap demo 2>&1 || echo "status $?"; }
visit setpriv --reuid=65534 --regid=65534 --clear-groups >/shared/as-user
mv /usr/bin/apt-get /usr/bin/hidden
visit env >/shared/without-apt
mv /usr/bin/hidden /usr/bin/apt-get
make demo SUITE=tests/bare/two-methods.yaml
.venv/bin/python -c 'import torch; print("cuda:", torch.version.cuda)'
cp -r report/two-methods /shared/report
echo "processes:" $(ls /proc | grep -c '^[0-9]')
"""
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Visit:
    """output: of the whole visit; shared: the folder with what it left, `report` among it."""

    code: int
    output: str
    shared: Path


def archive() -> tuple[str, str] | None:
    """The release of this machine's distribution, and the mirror that apt takes it from."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Identifier: Packages"]
    targets = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in targets.splitlines():
        suite, component, mirror = line.split(" ", 2)
        if (suite, component) == (release, "main"):
            return release, mirror
    return None


def pip_settings() -> dict[str, str]:
    """How this machine's pip reaches its packages, as environment variables. Its own environment wins."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split("=", 1) for line in sorted(lines, key=lambda line: line.startswith(":env:"))]
    settings = {
        "PIP_" + name.rsplit(".", 1)[1].upper().replace("-", "_"): str(ast.literal_eval(value)) for name, value in pairs
    }
    cache = subprocess.run([*command[:3], "cache", "dir"], capture_output=True, text=True, check=False)
    if cache.returncode == 0 and Path(cache.stdout.strip()).is_dir():
        settings["PIP_CACHE_DIR"] = cache.stdout.strip()
    return settings


def local_paths(settings: dict[str, str]) -> list[Path]:
    """Files and folders of this machine that the settings name. Beside `simple` an index has the files it links to."""
    words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    paths = {Path(word.removesuffix("/simple")) for word in words if word.startswith("/")}
    return sorted(path for path in paths if path.exists())


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("a bare machine needs root and debootstrap")
    found = archive()
    if found is None:
        pytest.skip("apt has no release of this distribution to make a bare machine of")
    folder = tmp_path_factory.mktemp("bare")
    root, shared = folder / "root", folder / "shared"
    root.mkdir()
    shared.mkdir()
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    subprocess.run([*git, "bundle", "create", "-q", shared / "longhaul.bundle", "HEAD"], check=True)
    apt = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    (shared / "apt.conf").write_text(apt)
    settings = pip_settings()
    for name in (*PROXIES, *(proxy.upper() for proxy in PROXIES), *CERTIFICATES):
        if value := os.environ.get(name):
            settings[name] = value
    paths = local_paths(settings)
    (shared / "binds").write_text("".join(f"{path}\n" for path in paths))

    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {**settings, "PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}
    namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    script = f"mkdir -p '/home/new user'\n{VISIT}"
    command = [*namespaces, str(HERE / "machine.sh"), str(root), *found, str(shared), "/bin/sh", "-c", script]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    (shared / "output.log").write_text(done.stdout)
    yield Visit(done.returncode, done.stdout, shared)
    assert not list(root.iterdir()), "the machine is still mounted"
    shutil.rmtree(folder)


def test_make_demo_ends_with_an_open_report(visit: Visit) -> None:
    assert visit.code == 0, visit.output
    page = (visit.shared / "report" / "index.html").read_text(encoding="utf-8")
    assert "<title>two-methods – Longhaul report</title>" in html.unescape(page)
    table = re.search(r'<table id="table-methods">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert table is not None
    rows = [re.sub("<.*?>", " ", row).split() for row in re.findall("<tr>(.*?)</tr>", table[1], re.DOTALL)]
    assert [row[:2] for row in rows] == [["ddp", "transatlantic"], ["diloco", "transatlantic"]]


def test_it_says_what_it_installs_and_why(visit: Visit) -> None:
    installed = re.findall(r"^bootstrap: installing (\S+): (.+)$", visit.output, re.MULTILINE)
    assert {name for name, _ in installed} == {"iproute2", "iptables"}
    assert all(len(why.split()) >= 5 for _, why in installed)


@pytest.mark.parametrize("name", ["as-user", "without-apt"])
def test_what_it_cannot_install_it_names_and_stops(visit: Visit, name: str) -> None:
    lines = (visit.shared / name).read_text().splitlines()
    assert lines[-1] == "status 1"
    assert any("iproute2 iptables" in line for line in lines)
    assert any(line.startswith("bootstrap:   iproute2: builds and shapes") for line in lines)
    assert all(line.startswith("bootstrap: ") for line in lines[:-1])


def test_its_output_is_short_and_without_warnings(visit: Visit) -> None:
    assert not re.findall("warning|deprecat|is ignored", visit.output, re.IGNORECASE), visit.output
    assert len(visit.output.splitlines()) < 60, visit.output


def test_torch_is_a_cpu_build_or_the_output_says_why(visit: Visit) -> None:
    assert "cuda: None" in visit.output or "torch comes from pip's own indexes" in visit.output


def test_no_process_of_the_demo_is_left(visit: Visit) -> None:
    """Left are `machine.sh` and the visit's own shell with the two commands that count."""
    (count,) = re.findall(r"^processes: (\d+)$", visit.output, re.MULTILINE)
    assert int(count) <= 5
