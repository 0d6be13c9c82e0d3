"""Methods from outside the package: a Python file, or the entry-point group `longhaul.methods`. In any process."""

from __future__ import annotations

import ast
import hashlib
import sys
import threading
import traceback
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from netsim.errors import InputError, Phrase
from netsim.library import PACKAGES

GROUP = "longhaul.methods"
_parsing = threading.Lock()  # Python 3.11 miscounts its recursion where two threads build syntax trees at once


def is_file(name: str) -> bool:
    """Whether a method is named by its file."""
    return name.endswith(".py")


def installed() -> dict[str, metadata.EntryPoint]:
    """Methods of installed distributions, by the name of their entry point."""
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def files(folder: Path) -> list[str]:
    """The Python files of a folder that define METHOD, by their names; read, not imported."""
    return sorted(path.name for path in folder.glob("*.py") if _defines_method(path))


def _defines_method(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "METHOD" for target in targets)


def sources(path: Path) -> tuple[Path, ...]:
    """The file, and those beside it that it imports, directly or not, by absolute imports; packages as a whole."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found[file] = None
        for name in sorted(_top_level_imports(file)):
            beside = path.parent / name
            if (beside / "__init__.py").is_file():
                waiting += sorted(beside.rglob("*.py"))
            elif beside.with_suffix(".py").is_file():
                waiting.append(beside.with_suffix(".py"))
    return (path, *sorted(found.keys() - {path}))


def content_of(path: Path) -> bytes:
    """What is in the file and in those beside it that it imports: another content is another program."""
    first, *others = sources(path)
    parts = [first.read_bytes()]
    for file in others:
        parts += [file.relative_to(path.parent).as_posix().encode(), file.read_bytes()]
    return b"\0".join(parts)


def _top_level_imports(path: Path) -> set[str]:
    try:
        with _parsing:
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.partition(".")[0] for name in found} - {*PACKAGES, "longhaul", "reports"}


def module_from(path: Path, where: str, field: str = "method") -> ModuleType:
    """The module in a file, imported once for each content; it may import files beside it. InputError with file and
    line where it cannot be.

    field: the key of a document that names the file, for messages.
    """
    path = path.absolute()  # as tracebacks name it
    try:
        content = content_of(path)
    except OSError as error:
        raise InputError(where, field, str(path), f"a readable Python file ({error.strerror})") from None
    name = f"longhaul_file_{path.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up there
    if len(sources(path)) > 1 and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that nothing beside it can stand in for a package of ours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        found = Phrase(f"{type(error).__name__}: {error}")
        raise InputError(str(path), "", found, "a file that can be imported", line=line_in(error, path)) from error
    _check_own(path)
    return module


def _check_own(path: Path) -> None:
    """That what a file imports of its folder is what stands there, and not of the same name from another folder."""
    for beside in sources(path)[1:]:
        name = beside.relative_to(path.parent).with_suffix("").parts[0]
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is not None and path.parent not in Path(origin).parents:
            raise InputError(str(path), "", f"import {name} gave {origin}", f"another name for {beside.name} beside it")


def line_in(error: BaseException, path: Path) -> int | None:
    """The line of the file in which an error arose; None for one that arose elsewhere."""
    if isinstance(error, SyntaxError):
        return error.lineno
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1].lineno if frames else None
