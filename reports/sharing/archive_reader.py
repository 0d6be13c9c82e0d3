"""Unpacks archives, which may come from anybody, and lets commands take them in the place of directories."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from netsim.errors import InputError
from reports.manifest import files_under
from reports.sharing.archive_manifest import (
    MANIFEST_NAME,
    MOST_MANIFEST,
    ArchivedFile,
    ArchiveManifest,
    is_plain,
    manifest_from,
)
from reports.sharing.compression import stem_of, suffix_of, tar_to_read

_CHUNK = 1 << 20
RECORDS = "runs"  # the archive's folder of records


def is_archive(path: Path) -> bool:
    """Whether `path` is a file with the name of an archive."""
    return suffix_of(path) is not None and path.is_file()


def unpack(archive: Path, folder: Path) -> ArchiveManifest:
    """The archive's files under the new directory `folder`, each compared with its hash.

    Nothing but plain files that archive.json lists is written, nothing outside `folder`, and no more bytes than it
    says. InputError for an archive that is damaged or not ours; `folder` is then gone again.
    """
    folder.mkdir()
    try:
        return _unpack(archive, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _unpack(archive: Path, folder: Path) -> ArchiveManifest:
    where = str(archive)
    manifest: ArchiveManifest | None = None
    written: set[str] = set()
    with tar_to_read(archive) as tar:
        for entry in tar:
            root, _, name = entry.name.partition("/")
            if not entry.isreg() or not is_plain(entry.name) or not name:
                raise InputError(
                    where, entry.name[:200], "a link, a folder or a device", "plain files inside the archive"
                )
            if manifest is None:
                if name != MANIFEST_NAME or entry.size > MOST_MANIFEST:
                    raise InputError(
                        where, "", f"{entry.name[:200]} first", f"an archive that begins with {MANIFEST_NAME}"
                    )
                content = _file(tar, entry).read()
                manifest = manifest_from(content, where)
                (folder / MANIFEST_NAME).write_bytes(content)
                first = root
                continue
            listed = manifest.files.get(name)
            if listed is None or root != first or name in written or entry.size != listed.bytes:
                raise InputError(
                    where, entry.name[:200], "a file that archive.json does not list", "its files, each once"
                )
            _copy(tar, entry, folder / name, listed, where)
            written.add(name)
    missing = sorted(set(manifest.files) - written) if manifest is not None else [MANIFEST_NAME]
    if manifest is None or missing:
        raise InputError(where, "", f"no {missing[0]}", "every file that archive.json lists")
    return manifest


def _file(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> tarfile.ExFileObject:
    file = tar.extractfile(entry)
    assert isinstance(file, tarfile.ExFileObject)
    return file


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path, listed: ArchivedFile, where: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    source = _file(tar, entry)
    with path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != listed.sha256:
        raise InputError(where, entry.name[:200], "other bytes than were archived", "an archive that was not changed")
    os.utime(path, (entry.mtime, entry.mtime))  # which of two records of a cell is the newer


@contextmanager
def record_folders(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Directories as they are, and in the place of each archive its records, unpacked until the block ends."""
    with tempfile.TemporaryDirectory(prefix="longhaul-") as temporary:
        yield [_records(path, Path(temporary) / f"{number}") for number, path in enumerate(paths)]


def _records(path: Path, folder: Path) -> Path:
    if not is_archive(path):
        return path
    unpack(path, folder)
    return folder / RECORDS


def kept_records(paths: Sequence[Path], out: Path | None) -> tuple[list[Path], Path | None]:
    """Directories to report on, and where the report goes: of archives the records are kept beside it.

    The links of a report lead to its records, so these are unpacked to OUT.records/ARCHIVE; what stands there already
    is used if it is the same, and refused otherwise. `out`: report/ARCHIVE for archives if None.
    """
    archives = [path for path in paths if is_archive(path)]
    if not archives:
        return list(paths), out
    out = out or Path("report") / "+".join(dict.fromkeys(stem_of(path) for path in archives))[:100]
    home = out.with_name(f"{out.name}.records")
    folders = []
    for path in paths:
        folders.append(_kept(path, home / stem_of(path)) if is_archive(path) else path)
    return folders, out


def _kept(archive: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        fresh = Path(temporary) / "new"
        unpack(archive, fresh)
        if not target.exists():
            fresh.rename(target)
        elif not _equal(fresh, target):
            raise InputError(str(target), "", "other files than the archive's", "another --out, or move the directory")
    return target / RECORDS


def _equal(one: Path, other: Path) -> bool:
    names = files_under(one)
    return names == files_under(other) and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)
