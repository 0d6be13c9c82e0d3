"""Where text comes from: the standard library's own source, text files, lines of JSON, columns of tables, or files of
tokens. `encoding` turns text into tokens.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.spec.run_spec import Data
from harness.worker.data.columns import DataColumn, dataset_columns, parquet_columns
from harness.worker.data.encoding import Encoder
from harness.worker.data.tokens import Tokens, open_tokens
from netsim.errors import InputError

TEXT_SUFFIXES = {".txt", ".md", ".rst", ".tex", ".html", ".csv", ".py"}  # that should be text, whatever is in them

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
    """Files without repetitions, in order of their names. `digest` covers names and contents.

    held_out: files that the suite names as held-out text; none where a share is to be held out.
    """

    files: tuple[TextFile, ...]
    duplicates: int
    digest: str
    held_out: tuple[TextFile, ...] = ()


def read_corpus(data: Data) -> Corpus:
    """All text that `data` names. Raises InputError when the path is missing or holds no text."""
    if data.source == "stdlib":
        return _corpus(_standard_library(Encoder(data)), "Python's standard library")
    assert data.path is not None
    corpus = _corpus(_files(data, data.path, "path"), data.path)
    if data.val is None:
        return corpus
    kept = _corpus(_files(data, data.val, "val"), data.val)
    known = {file.digest for file in kept.files}
    training = tuple(file for file in corpus.files if file.digest not in known)  # `val` may lie inside `path`
    if not training:
        raise InputError("data", "val", data.val, "text beside that of path, which has no other")
    digest = hashlib.sha256(f"{corpus.digest} {kept.digest}".encode()).hexdigest()
    return Corpus(training, corpus.duplicates, digest, kept.files)


def _files(data: Data, where: str, field: str) -> Iterator[TextFile]:
    path = Path(where)
    if "\0" in where or not path.exists():
        raise InputError("data", field, where, "an existing file or directory")
    if data.source == "tokens":
        return token_files(path, data.token_type)
    encoder = Encoder(data)
    if data.source == "text":
        return _text(path, encoder)
    if data.source == "jsonl":
        return json_lines(path, data.field, encoder)
    columns = parquet_columns if data.source == "parquet" else dataset_columns
    return _of_columns(columns(path, data.field), encoder)


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


def _standard_library(encoder: Encoder) -> Iterator[TextFile]:
    """Every *.py file; the group is the top-level package, and modules outside packages are one group."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        built = parts[0].startswith(("config-", "_sysconfigdata"))  # written by the build of this very interpreter
        if not _LEFT_OUT & set(parts) and not built and not path.is_symlink():
            yield from _file_of(path, root, "modules", encoder)


def _text(path: Path, encoder: Encoder) -> Iterator[TextFile]:
    """Every file below `path` that is UTF-8 text, hidden ones aside; the group is the first directory."""
    root = path if path.is_dir() else path.parent
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        hidden = any(part.startswith(".") for part in found.relative_to(root).parts)
        if found.is_file() and not hidden:
            yield from _file_of(found, root, ".", encoder)


def _file_of(path: Path, root: Path, loose: str, encoder: Encoder) -> Iterator[TextFile]:
    """The file as one TextFile; nothing when it is empty or not text. `loose`: group of files directly in `root`."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if path.suffix.lower() in TEXT_SUFFIXES and b"\0" not in content:
            found = f"{path}, byte {error.start}"
            allowed = "UTF-8 text: convert it (iconv -f latin1 -t utf8), or leave it out of the folder"
            raise InputError("data", "path", found, allowed) from None
        return
    except OSError as error:
        raise InputError("data", "path", f"{path} ({error.strerror})", "readable files") from None
    if not content.strip() or b"\0" in content:
        return
    name = path.relative_to(root)
    group = name.parts[0] if len(name.parts) > 1 else loose
    yield TextFile(name.as_posix(), group, encoder.tokens([text]), _digest(content, encoder))


def json_lines(path: Path, field: str, encoder: Encoder) -> Iterator[TextFile]:
    """`path` itself or every *.jsonl in it, each its own group: the documents of all lines, a NUL after each."""
    for found in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        with found.open("rb") as file:
            lines = enumerate(file, start=1)
            documents = [_document(found, number, line, field) for number, line in lines if line.strip()]
        yield from _of_documents(found.name, found.stem, documents, encoder)


def _of_columns(columns: Iterable[DataColumn], encoder: Encoder) -> Iterator[TextFile]:
    """Columns of text or tokens; empty ones are left out."""
    for column in columns:
        if column.tokens is None:
            yield from _of_documents(column.name, column.group, column.documents, encoder)
        elif column.tokens.size:
            yield TextFile(column.name, column.group, column.tokens, hashlib.sha256(column.tokens.data).digest())


def _of_documents(name: str, group: str, documents: Sequence[str], encoder: Encoder) -> Iterator[TextFile]:
    if documents:
        content = b"".join(text.encode() + b"\0" for text in documents)
        yield TextFile(name, group, encoder.tokens(documents), _digest(content, encoder))


def _digest(content: bytes, encoder: Encoder) -> bytes:
    """Of text as this encoder turns it into tokens."""
    return hashlib.sha256(encoder.digest + content).digest()


def _document(path: Path, number: int, line: bytes, field: str) -> str:
    try:
        text = json.loads(line)[field]
        if isinstance(text, str):
            text.encode()  # half a surrogate pair is no text
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        text = None
    if not isinstance(text, str):
        raise InputError("data", "path", f"{path}, line {number}", f"a JSON object with text in {field!r}") from None
    return text


def token_files(path: Path, token_type: str) -> Iterator[TextFile]:
    """`path` itself or every *.bin and *.npy in it; each is its own group."""
    names = [*path.glob("*.bin"), *path.glob("*.npy")] if path.is_dir() else [path]
    for found in sorted(names):
        tokens = open_tokens(found, token_type)
        if tokens.size:
            yield TextFile(found.name, found.stem, tokens, hashlib.sha256(np.ascontiguousarray(tokens).data).digest())
