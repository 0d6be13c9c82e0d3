"""The files of a report that stands in a directory: only these are ever replaced or deleted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from netsim.errors import InputError

MANIFEST = ".longhaul-report.json"


def files_under(folder: Path) -> list[str]:
    """Relative POSIX paths of the files under `folder`, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def check_place(out: Path) -> None:
    """InputError if a report cannot go to `out`: only to an empty directory, one with a report, or a new name."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(str(out), "", "a file or a link", "a directory or a new name")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST).exists():
            raise InputError(str(out), "", "not a report", "an empty directory, a report, or a new name")
        _listed(out)


@contextmanager
def new_report(out: Path) -> Iterator[Path]:
    """An empty directory beside `out` to write a report in, which takes its place when the block has ended well.

    Nothing is left of it otherwise. InputError as from `check_place` and `put_in_place`.
    """
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield made
        made.chmod(0o755)
        put_in_place(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def put_in_place(made: Path, out: Path) -> None:
    """Move the report in `made` to `out`, where an older report is replaced and every other file is left alone.

    InputError, with nothing changed, if a file that no report wrote is where one of the new report belongs. A directory
    that holds nothing but a report is swapped whole; in any other, the manifest lists old and new files until the
    replacement is complete, so that a report cut short is still known as ours.
    """
    new = files_under(made)
    _write(made, new)
    if not out.exists():
        made.rename(out)
        return
    check_place(out)
    old = _listed(out)
    foreign = [name for name in files_under(out) if name not in old and name != MANIFEST]
    blocked = _blocked(out, new, old)
    if blocked:
        raise InputError(str(out / blocked[0]), "", "a file that no report wrote", "another --out, or move the file")
    if not foreign and not _has_links(out):
        _swap(made, out)
        return
    _write(out, sorted({*old, *new}))
    for name in new:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).replace(out / name)
    for name in old - set(new):
        (out / name).unlink(missing_ok=True)
    for name in sorted({str(PurePosixPath(name).parent) for name in old}, key=len, reverse=True):
        if name != "." and (out / name).is_dir() and not any((out / name).iterdir()):
            (out / name).rmdir()
    (made / MANIFEST).replace(out / MANIFEST)


def _blocked(out: Path, new: Iterable[str], old: set[str]) -> list[str]:
    """Where something that is not ours stands in the way of a new file: the file itself, or one of its folders."""
    found = []
    for name in new:
        if name not in old and os.path.lexists(out / name):
            found.append(name)
        parents = [parent.as_posix() for parent in PurePosixPath(name).parents if parent.as_posix() != "."]
        found += [parent for parent in parents if os.path.lexists(out / parent) and not _plain_folder(out / parent)]
    return found


def _plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _has_links(out: Path) -> bool:
    return any(path.is_symlink() for path in out.rglob("*"))


def _swap(made: Path, out: Path) -> None:
    """`out` is the old report or the new one, never half of either."""
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        out.rename(old / "old")
        made.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, names: list[str]) -> None:
    document = {"written_by": "longhaul report", "files": names}
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / MANIFEST)


def _listed(out: Path) -> set[str]:
    """The files that the manifest in `out` lists, none without one; InputError for one that is not ours."""
    path = out / MANIFEST
    if not path.exists():
        return set()
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        sound = all(isinstance(name, str) and _inside(name) for name in names) and isinstance(names, list)
    except (OSError, ValueError, KeyError, TypeError):
        sound, names = False, []
    if not sound or any(not _plain_folder(parent) for name in names for parent in _folders(out, name)):
        raise InputError(str(path), "", "not a manifest of ours", "a directory with a report, or a new name")
    return set(names)


def _folders(out: Path, name: str) -> list[Path]:
    """The folders of a listed file below `out` that exist."""
    parents = [out / parent for parent in PurePosixPath(name).parents if parent.as_posix() != "."]
    return [parent for parent in parents if os.path.lexists(parent)]


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
