"""Published schemas are those of the models (`longhaul schemas --out schemas`); shipped documents satisfy theirs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from longhaul.json_schemas import SCHEMAS, schema_text
from netsim.documents import read_yaml
from netsim.library import ROOT

FOLDERS = {"suites": "suite", "topologies": "topology", "scenarios": "scenario"}
SHIPPED = [(kind, path) for folder, kind in FOLDERS.items() for path in sorted((ROOT / folder).glob("*.yaml"))]
DOCUMENTS = [
    *SHIPPED,
    ("claims", ROOT / "docs" / "claims.yaml"),
    ("calibration", ROOT / "docs" / "calibration.yaml"),
]


def stored(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_published_schema_is_that_of_its_model(name: str) -> None:
    text = (ROOT / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    assert text == schema_text(name), "run: longhaul schemas --out schemas"
    Draft202012Validator.check_schema(stored(name))


def test_every_schema_is_published_and_listed() -> None:
    assert {path.stem for path in (ROOT / "schemas").glob("*.json")} == set(SCHEMAS)
    listed = re.findall(r"\]\(([\w-]+)\.json\)", (ROOT / "schemas" / "README.md").read_text(encoding="utf-8"))
    assert set(listed) == set(SCHEMAS)


@pytest.mark.parametrize(("kind", "path"), DOCUMENTS, ids=lambda value: getattr(value, "stem", value))
def test_a_shipped_document_satisfies_its_schema(kind: str, path: Path) -> None:
    errors = Draft202012Validator(stored(kind)).iter_errors(read_yaml(path))
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_a_shipped_document_names_its_schema(kind: str, path: Path) -> None:
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
    assert match is not None
    assert (path.parent / match[1]).resolve() == ROOT / "schemas" / f"{kind}.json"
    packaged = ROOT / "longhaul" / "library" / path.parent.name / match[1]  # as it lies in a wheel
    assert packaged.is_file()


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("suite", ["train", "stpes"], 3),
        ("suite", ["train", "steps"], 0),
        ("suite", ["seeds"], [-1]),
        ("topology", ["defaults", "up"], "20 MB"),
        ("topology", ["sites", "virginia", "workers"], 0),
        ("scenario", ["network", "rtt"], "fast"),
    ],
)
def test_a_schema_refuses_what_the_model_refuses(kind: str, path: list[str], value: object) -> None:
    name = {"suite": "suites/quickstart", "topology": "topologies/transatlantic", "scenario": "scenarios/photon-7b"}[
        kind
    ]
    document = read_yaml(ROOT / f"{name}.yaml")
    inner: Any = document
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
        assert isinstance(inner, dict)
    inner[path[-1]] = value
    assert not Draft202012Validator(stored(kind)).is_valid(document)
