"""Whatever a file says, it is read or refused with one clear message; nothing else happens, and nothing is written."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.bench.malformed_inputs import STRANGE, try_inputs
from harness.records.run_record import Result, Step, read_json, read_lines, read_run
from harness.run.cell import Cell
from harness.spec.suite import load_suite
from netsim.documents import read_yaml, validate
from netsim.errors import InputError
from netsim.topology import load_topology, topology_from
from tests.fuzz.guided import guided, lines_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))  # `make fuzz` tries more
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from([*map(str, STRANGE)])
)
names = st.sampled_from(
    ["name", "model", "train", "methods", "topologies", "sites", "links", "defaults", "timeline", "faults", "seeds"]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(names, st.text(max_size=8)), inner)),
    max_leaves=12,
)
documents = st.dictionaries(names, values, max_size=8)


def read_or_refused(read: Any, *arguments: Any) -> None:
    with suppress(InputError):
        read(*arguments)


def read_or_refused_further(read: Any, *arguments: Any) -> None:
    """The same, guided by coverage."""
    guided(lambda: read(*arguments), InputError)


@QUICK
@given(documents)
def test_any_mapping_is_a_suite_or_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    read_or_refused_further(load_suite, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["suite.yaml"]


@QUICK
@given(documents)
def test_any_mapping_is_a_topology_or_is_refused(document: dict[str, Any]) -> None:
    read_or_refused_further(topology_from, document, "topology")


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_are_yaml_or_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    read_or_refused(read_yaml, path)
    read_or_refused_further(load_topology, path)


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    read_or_refused(read_json, path)
    read_or_refused(read_run, tmp_path)
    read_or_refused(lambda: list(read_lines(path, Step)))


@QUICK
@given(values)
def test_any_value_is_a_result_or_is_refused(value: Any) -> None:
    read_or_refused_further(lambda: validate(Result, value, "result.json"))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 3000,
        "{a: " * 3000,
        "a: 1\na: 2",
        "? [1]\n: 2",
        "\ufeffname: x",
        "a: !!binary xyz",
        "a: 2026-13-45",
        "a: !!timestamp nonsense",
        "a: !!bool perhaps",
        "a: !!int x",
        "<<: 3",
        "%YAML 9.9\n---\na: 1",
        "--- a\n--- b",
        "a: 0x",
        "a: 1_000:99",
    ],
)
def test_yaml_that_plays_tricks_is_refused_or_harmless(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    read_or_refused(load_suite, path)
    read_or_refused(load_topology, path)


def test_a_topology_with_an_endless_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"name: x\ntrain: {{steps: 1}}\nmethods: [ddp]\ntopologies: [{'x' * 5000}]\n")
    with pytest.raises(InputError):
        load_suite(path)


def test_spoilt_documents_are_accepted_or_refused() -> None:
    tried = try_inputs(300, seed=7)
    assert tried.wrong == []
    assert tried.refused > 150


def test_suite_names_cannot_escape_the_runs_directory(tmp_path: Path) -> None:
    """Names in a suite cannot lead out of the directory of runs."""
    for field, value in {"name": "../../outside", "label": "../../outside"}.items():
        entry = {"method": "ddp", "label": value} if field == "label" else "ddp"
        document = {
            "name": value if field == "name" else "inside",
            "train": {"steps": 1},
            "methods": [entry],
            "topologies": ["lan"],
        }
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump(document))
        runs = tmp_path / "runs"
        try:
            cells = load_suite(path).cells
        except InputError:
            continue
        for cell in cells:
            directory = Cell.of(cell, runs).directory
            assert directory.resolve().is_relative_to(runs)
            assert directory.parent.parent == runs


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"id": 1}', "{", json.dumps({"id": "x" * 10000})])
def test_a_record_that_is_not_whole_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError):
        read_run(tmp_path)


def test_more_is_read_of_what_is_more_nearly_a_document(tmp_path: Path) -> None:
    """What the guidance goes by: a document is followed further than nonsense."""
    nonsense, document = tmp_path / "nonsense.yaml", tmp_path / "document.yaml"
    nonsense.write_text("x")
    document.write_text("{name: x, defaults: {up: 1 Mbit, down: 1 Mbit, rtt: 1 ms}, sites: {a: {}, b: {}}}")
    near = lines_of(lambda: read_or_refused(load_topology, nonsense))
    assert 0 < near < lines_of(lambda: read_or_refused(load_topology, document))
