"""The identity of the code that a run depends on: what its processes import, and nothing else.

So a change to a report, a benchmark or another method leaves finished runs valid; a change to anything that a run
executes does not.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from algorithms.loading import content_of, sources
from algorithms.method import find_class
from netsim.library import PACKAGES, ROOT

_PROCESSES = ("harness.run.execution", "harness.worker_main", "netsim.emulated.node.agent")


@cache
def code_hash(method: str) -> str:
    """A hash of the source that a run of `method` executes, of torch's version and Python's."""
    digest = hashlib.sha256()
    own = _within(method) or _outside(method, digest)
    for name, source in _executed(own):
        digest.update(name.encode() + b"\0" + source)
    digest.update(f"torch {metadata.version('torch')} python {platform.python_version()}".encode())
    return digest.hexdigest()[:16]


@cache
def module_hashes(method: str) -> dict[str, str]:
    """A short hash of each of our modules that a run of `method` executes, by its name: where two codes differ."""
    return {name: hashlib.sha256(source).hexdigest()[:12] for name, source in _executed(_within(method))}


def _within(method: str) -> tuple[str, ...]:
    """The module of a method of this package; nothing for one from elsewhere."""
    name = f"algorithms.methods.{method}"
    return (name,) if _file(name) else ()


@cache
def _executed(own: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """(name, source) of each of our modules that a run executes, by name. own: what its method adds to every run."""
    found = []
    for name in sorted(imported_by((*_PROCESSES, *own))):
        path = _file(name)
        assert path is not None
        found.append((name, path.read_bytes()))
    return tuple(found)


def _outside(method: str, digest: hashlib._Hash) -> tuple[str, ...]:
    """Take in the source of a method that is not of this package; what it imports of it."""
    source = inspect.getsourcefile(find_class(method, "method"))
    assert source is not None
    digest.update(content_of(Path(source)))
    return tuple(name for file in sources(Path(source)) for name in _imported(ast.parse(file.read_bytes())))


def imported_by(roots: tuple[str, ...]) -> set[str]:
    """Our modules that `roots` import, directly or not, by their import statements; the roots included."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and _file(name) is not None:
            found.add(name)
            waiting += _imports(name)
    return found


@cache
def _imports(name: str) -> tuple[str, ...]:
    path = _file(name)
    assert path is not None
    return tuple(_imported(ast.parse(path.read_text(encoding="utf-8"))))


def _imported(tree: ast.AST) -> list[str]:
    """Our modules that a program imports, and names in them."""
    named: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [module for module in named if module.split(".")[0] in PACKAGES]


def _file(name: str) -> Path | None:
    """The source of one of our modules; None for what is not a module (a class, say)."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
