"""Tar files whose compression follows from their name. Equal contents give equal bytes."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from netsim.errors import InputError

SUFFIXES = (".tar.zst", ".tar.gz", ".tar.xz")
_ZSTD_LEVEL = 10
_DAMAGES = (tarfile.TarError, zstandard.ZstdError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)


def suffix_of(path: Path) -> str | None:
    """The ending that names the compression; None for a file that is no archive by its name."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix) and path.name != suffix), None)


def stem_of(path: Path) -> str:
    """The name without that ending."""
    return path.name.removesuffix(suffix_of(path) or "")


@contextmanager
def tar_to_write(path: Path, suffix: str) -> Iterator[tarfile.TarFile]:
    """A new tar file at `path`, compressed as `suffix` says; no time and no name of it is stored."""
    with (
        path.open("xb") as raw,
        _packing(raw, suffix) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


def _packing(raw: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".tar.zst":
        return cast("IO[bytes]", zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(raw, closefd=False))
    if suffix == ".tar.gz":
        return cast("IO[bytes]", gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
    return cast("IO[bytes]", lzma.open(raw, "wb"))


def _unpacking(raw: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".tar.zst":
        return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    if suffix == ".tar.gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    return cast("IO[bytes]", lzma.open(raw))


@contextmanager
def tar_to_read(path: Path) -> Iterator[tarfile.TarFile]:
    """Its members one after another. InputError for a file that cannot be read, or is damaged anywhere."""
    try:
        with (
            path.open("rb") as raw,
            _unpacking(raw, suffix_of(path) or "") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            yield tar
    except InputError:
        raise
    except _DAMAGES as error:
        raise InputError(str(path), "", f"a damaged archive ({error})", "a whole file of longhaul archive") from None
    except OSError as error:
        raise InputError(str(path), "", error.strerror or str(error), "a readable archive") from None
