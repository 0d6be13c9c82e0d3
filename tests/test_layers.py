"""The house: imports point one way, and modules stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RANK = {"netsim": 0, "algorithms": 1, "harness": 2, "reports": 3}
MODULES = sorted(path for package in RANK for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_from_reports_towards_netsim(path: Path) -> None:
    own = RANK[path.relative_to(ROOT).parts[0]]
    assert not {name for name in imported(path) if RANK.get(name, -1) > own}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_exceeds_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_netsim_knows_no_torch() -> None:
    assert not [path for path in MODULES if path.is_relative_to(ROOT / "netsim") and "torch" in imported(path)]
