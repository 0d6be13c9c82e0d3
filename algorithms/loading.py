"""Methods from outside the package: a Python file, or the entry-point group `longhaul.methods`. In any process."""

from __future__ import annotations

import hashlib
import sys
import traceback
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from netsim.errors import InputError

GROUP = "longhaul.methods"


def is_file(name: str) -> bool:
    """Whether a method is named by its file."""
    return name.endswith(".py")


def installed() -> dict[str, metadata.EntryPoint]:
    """Methods of installed distributions, by the name of their entry point."""
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def module_from(path: Path, where: str) -> ModuleType:
    """The module in a file, imported once for each content. InputError with file and line where it cannot be."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(where, "method", str(path), f"a readable Python file ({error.strerror})") from None
    name = f"longhaul_method_{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(
            where, "method", f"{path}, {_line(error, path)}: {error}", "a file that can be imported"
        ) from error
    return module


def _line(error: Exception, path: Path) -> str:
    """Where in the file an import failed."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {frames[-1].lineno}" if frames else "on import"
