"""Where text comes from: the standard library's own source, a directory of text files, or files of tokens.

Text becomes bytes, one token each, and a NUL ends every file. Token files are nanoGPT's: uint16,
little-endian, no header.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.spec.run_spec import Data
from netsim.errors import InputError

TOKEN = np.dtype("<u2")
Tokens = NDArray[np.uint8] | NDArray[np.uint16]

# Distributions install Python's own tests or leave them out, so without them the text is the same on more machines.
# The tables in `encodings` are generated and nearly copies of each other: held-out ones would be known from training.
_LEFT_OUT = {"test", "tests", "idle_test", "encodings", "__phello__", "site-packages", "dist-packages"}


@dataclass(frozen=True)
class TextFile:
    """name: path below the source's folder.   group: what `by_source` keeps together.   tokens: (n,), at least one."""

    name: str
    group: str
    tokens: Tokens
    digest: bytes


@dataclass(frozen=True)
class Corpus:
    """Files without repetitions, in order of their names. `digest` covers names and contents."""

    files: tuple[TextFile, ...]
    duplicates: int
    digest: str


def read_corpus(data: Data) -> Corpus:
    """All text that `data` names. Raises InputError when the path is missing or holds no text."""
    if data.source == "stdlib":
        return _corpus(_standard_library(), "Python's standard library")
    assert data.path is not None
    path = Path(data.path)
    if "\0" in data.path or not path.exists():
        raise InputError("data", "path", data.path, "an existing file or directory")
    return _corpus(_text(path) if data.source == "text" else _token_files(path), data.path)


def _corpus(found: Iterable[TextFile], where: str) -> Corpus:
    files: dict[bytes, TextFile] = {}
    total = 0
    for file in sorted(found, key=lambda file: file.name):
        total += 1
        files.setdefault(file.digest, file)
    if not files:
        raise InputError("data", "path", f"no text in {where}", "at least two files with text, or one file of tokens")
    digest = hashlib.sha256()
    for file in files.values():
        digest.update(file.name.encode() + b"\0" + file.digest)
    return Corpus(tuple(files.values()), total - len(files), digest.hexdigest())


def _standard_library() -> Iterator[TextFile]:
    """Every *.py file; the group is the top-level package, and modules outside packages are one group."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        built = parts[0].startswith(("config-", "_sysconfigdata"))  # written by the build of this very interpreter
        if not _LEFT_OUT & set(parts) and not built and not path.is_symlink():
            yield from _bytes_of(path, root, "modules")


def _text(path: Path) -> Iterator[TextFile]:
    """Every file below `path` that is UTF-8 text, hidden ones aside; the group is the first directory."""
    root = path if path.is_dir() else path.parent
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        hidden = any(part.startswith(".") for part in found.relative_to(root).parts)
        if found.is_file() and not hidden:
            yield from _bytes_of(found, root, ".")


def _bytes_of(path: Path, root: Path, loose: str) -> Iterator[TextFile]:
    """The file as one TextFile; nothing when it is empty or not text. `loose`: group of files directly in `root`."""
    try:
        content = path.read_bytes()
        content.decode("utf-8")
    except UnicodeDecodeError:
        return
    except OSError as error:
        raise InputError("data", "path", f"{path} ({error.strerror})", "readable files") from None
    if not content.strip() or b"\0" in content:
        return
    name = path.relative_to(root)
    group = name.parts[0] if len(name.parts) > 1 else loose
    tokens = np.frombuffer(content + b"\0", dtype=np.uint8)
    yield TextFile(name.as_posix(), group, tokens, hashlib.sha256(content).digest())


def _token_files(path: Path) -> Iterator[TextFile]:
    """`path` itself or every *.bin in it; each is its own group."""
    for found in sorted(path.glob("*.bin")) if path.is_dir() else [path]:
        size = found.stat().st_size
        if size % TOKEN.itemsize:
            raise InputError("data", "path", f"{found} of {size} bytes", "uint16 tokens: an even number of bytes")
        if size:
            tokens = np.memmap(found, dtype=TOKEN, mode="r")
            yield TextFile(found.name, found.stem, tokens, hashlib.sha256(tokens.data).digest())
