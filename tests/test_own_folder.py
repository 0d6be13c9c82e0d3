"""Somebody's own folder: a method and a model with what they import beside them, in every place where they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from algorithms.loading import content_of, module_from, sources
from algorithms.method import find
from harness.records.run_record import read_run
from harness.run.own_code import OwnCode
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from netsim.emulated.substrates.capabilities import container_engine
from netsim.errors import InputError
from tests.test_end_to_end import longhaul

METHOD = '''"""Plain averages with another name, whose formula is in the file beside it."""

from algorithms.methods.diloco import Diloco
from formulas_beside_it import LEARNING_RATE


class Mine(Diloco):
    name = "mine"
    summary = "DiLoCo with the outer learning rate of the file beside it"

    def plan(self, shape, sites, steps, seed=0):
        assert LEARNING_RATE == 1.0
        return super().plan(shape, sites, steps, seed)


METHOD = Mine
'''
MODEL = '''"""A bigram model, whose parts are in a package beside it."""

from layers_beside_it.parts import Bigram


def build(width=16):
    return Bigram(256, width)
'''
PARTS = """from torch import nn


class Bigram(nn.Sequential):
    def __init__(self, vocabulary, width):
        super().__init__(nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary))
"""
SUITE: dict[str, Any] = {
    "name": "own",
    "model": {"module": "model.py:build", "vocabulary": 256, "sequence": 16},
    "train": {"steps": 4, "batch": 2, "warmup": 2, "evaluate_every": 2, "evaluation_sequences": 4},
    "methods": [{"method": "mine.py", "options": {"sync_every": 2}}],
    "topologies": ["lan"],
    "sites": 2,
    "network": {"gate": False},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "my own folder"
    (own / "layers_beside_it").mkdir(parents=True)
    (own / "mine.py").write_text(METHOD)
    (own / "formulas_beside_it.py").write_text("LEARNING_RATE = 1.0\n")
    (own / "model.py").write_text(MODEL)
    (own / "layers_beside_it" / "__init__.py").write_text("")
    (own / "layers_beside_it" / "parts.py").write_text(PARTS)
    (own / "unused.py").write_text("raise SystemExit\n")
    (own / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    return own


@pytest.fixture(autouse=True)
def _forget() -> Any:
    """Each test has its own folder with files of the same names."""
    path, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if "beside_it" in name or name.startswith("longhaul_file_"):
            del sys.modules[name]


def cell_of(folder: Path) -> RunSpec:
    return load_suite(folder / "suite.yaml").cells[0]


def test_a_run_names_every_file_that_it_imports(folder: Path) -> None:
    found = {file.relative_to(folder).as_posix() for file in cell_of(folder).own_files}
    parts = {"layers_beside_it/__init__.py", "layers_beside_it/parts.py"}
    assert found == {"mine.py", "model.py", "formulas_beside_it.py", *parts}


def test_a_changed_file_beside_a_method_is_another_content(folder: Path) -> None:
    before = content_of(folder / "mine.py")
    (folder / "formulas_beside_it.py").write_text("LEARNING_RATE = 1.0  # changed\n")
    assert content_of(folder / "mine.py") != before


def test_our_own_packages_are_not_taken_for_files_beside(folder: Path) -> None:
    (folder / "algorithms").mkdir()
    (folder / "algorithms" / "__init__.py").write_text("")
    assert sources(folder / "mine.py") == (folder / "mine.py", folder / "formulas_beside_it.py")


def test_files_of_one_name_in_two_folders_are_told_apart(folder: Path, tmp_path: Path) -> None:
    """The second would silently get what the first imported."""
    find(str(folder / "mine.py"), {}, "here")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text(METHOD + "\n# another\n")
    (other / "formulas_beside_it.py").write_text("LEARNING_RATE = 2.0\n")
    with pytest.raises(InputError, match="another name for formulas_beside_it.py"):
        module_from(other / "mine.py", "here")


def test_a_package_elsewhere_is_made_visible(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an editable installation or PYTHONPATH has it."""
    monkeypatch.syspath_prepend(str(folder))
    (folder / "layers_beside_it" / "__init__.py").write_text(MODEL)
    suite = {**SUITE, "model": {**SUITE["model"], "module": "layers_beside_it:build"}, "methods": ["diloco"]}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    own = OwnCode.of(cell_of(folder))
    assert own.visible == (folder / "layers_beside_it",)
    assert own.python_path == (folder,)


@pytest.mark.skipif(os.geteuid() != 0, reason="others' trainers run as the user who starts them")
def test_a_file_that_trainers_may_not_read_is_named(folder: Path) -> None:
    (folder / "formulas_beside_it.py").chmod(0o600)
    with pytest.raises(InputError, match="chmod o\\+r .*formulas_beside_it.py"):
        OwnCode.of(cell_of(folder))


def run(folder: Path, substrate: str) -> None:
    done = longhaul("run", "suite.yaml", "--substrate", substrate, "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = (folder / "runs" / "own").glob("*/result.json")
    result = read_run(directory.parent).result
    assert (result.substrate, result.valid) == (substrate, True), result.why_invalid
    assert result.payload_bytes_per_worker == result.planned_payload_bytes_per_worker > 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to build network namespaces")
def test_an_own_method_trains_an_own_model_in_namespaces(folder: Path) -> None:
    run(folder, "netns")


@pytest.mark.root
@pytest.mark.docker
@pytest.mark.skipif(not container_engine(), reason="no Docker engine answers")
def test_an_own_method_trains_an_own_model_in_containers(folder: Path) -> None:
    run(folder, "docker")
