"""A wheel works without the clone: everything that it ships is found by name, from an empty directory."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from netsim.library import ROOT, names

pytestmark = pytest.mark.slow  # a wheel is built, and an environment around it
PACKAGES = ("netsim", "algorithms", "harness", "reports", "longhaul")
SOURCES = (*PACKAGES, "topologies", "suites", "scenarios", "schemas")
FILES = ("pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
TINY = """
name: tiny-run
model: tiny
train: {steps: 6, batch: 2, warmup: 2, evaluate_every: 3, evaluation_sequences: 2}
compute: {mode: paced, step_seconds: 0.3}
methods: [ddp, {method: diloco, options: {sync_every: 3}}]
topologies: [lan]
sites: 2
network: {substrate: netns, gate: no}
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, with the build backend that is installed here: nothing is downloaded."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel; its dependencies are those of the tests."""
    home = tmp_path_factory.mktemp("fresh") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def longhaul(python: Path, folder: Path, *arguments: str) -> Any:
    """The JSON that `longhaul ARGUMENTS --json` prints, started in `folder` with nothing of this clone in its reach."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    argv = [str(python), "-m", "longhaul", *arguments, "--json"]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_has_what_the_clone_ships(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("topologies", "suites", "scenarios", "schemas"):
        for path in (path for path in (ROOT / kind).rglob("*") if path.suffix in (".yaml", ".json")):
            assert f"longhaul/library/{path.relative_to(ROOT).as_posix()}" in inside
    for name in PACKAGES:
        assert f"{name}/py.typed" in inside
        for path in (ROOT / name).rglob("*"):
            where = path.relative_to(ROOT).as_posix()
            wanted = path.is_file() and path.suffix != ".pyc" and "library" not in path.parts
            assert not wanted or where in inside, where
    tops = {name.split("/")[0] for name in inside}
    assert tops == {*PACKAGES, next(top for top in tops if top.endswith(".dist-info"))}


def test_the_wheel_is_found_and_not_the_clone(python: Path, tmp_path: Path) -> None:
    code = "import netsim.library as l, longhaul; print(l.ROOT, longhaul.__file__)"
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all("environment" in word for word in done.stdout.split())


@pytest.mark.parametrize("kind", ["suites", "topologies", "scenarios"])
def test_the_library_is_listed_by_name(python: Path, tmp_path: Path, kind: Any) -> None:
    entries = longhaul(python, tmp_path, "list", kind)["entries"]
    assert [entry["name"] for entry in entries] == names(kind)


def test_a_suite_is_found_by_its_name(python: Path, tmp_path: Path) -> None:
    found = longhaul(python, tmp_path, "run", "quickstart", "--dry-run")
    assert found["suite"] == "quickstart"
    assert {cell["label"] for cell in found["cells"]} == {"ddp", "diloco", "photon", "lordo", "fomoe"}
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_is_found_by_its_name(python: Path, tmp_path: Path) -> None:
    assert longhaul(python, tmp_path, "project", "photon-7b", "--simulate")["scenario"] == "photon-7b"


def test_a_topology_is_found_by_its_name(python: Path, tmp_path: Path) -> None:
    assert len(longhaul(python, tmp_path, "wan", "show", "six-regions")["sites"]) == 6


@pytest.mark.root
def test_a_suite_runs_and_is_reported_on(python: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    found = longhaul(python, tmp_path, "run", "tiny.yaml")
    assert [run["state"] for run in found["runs"]] == ["complete", "complete"]
    longhaul(python, tmp_path, "report", "runs/tiny-run", "--out", "report")
    assert (tmp_path / "report" / "index.html").is_file()
