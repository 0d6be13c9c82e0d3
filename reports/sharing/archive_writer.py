"""Writes records and their report into one file that can be read anywhere.

ARCHIVE/archive.json    every file with its SHA-256, and what was left out
ARCHIVE/packages.txt    the Python packages of the writing environment, as pip lists them
ARCHIVE/runs/           the records, as `longhaul run` writes them
ARCHIVE/report/         the report, if wanted; its links lead into ../runs
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from netsim.errors import InputError
from reports.build import build_report
from reports.manifest import files_under
from reports.sharing.archive_manifest import FORMAT, MANIFEST_NAME
from reports.sharing.compression import SUFFIXES, stem_of, suffix_of, tar_to_write
from reports.sharing.contents import Contents, LeftOut, Member, contents_of


@dataclass(frozen=True)
class Written:
    """What was archived. bytes: of the file."""

    path: Path
    bytes: int
    finished: int
    unfinished: int
    left_out: tuple[LeftOut, ...]


def write_archive(folders: Sequence[Path], out: Path, baseline: str | None = None, report: bool = True) -> Written:
    """All runs under `folders`, with their report unless that is not wanted, in the new file `out`.

    Equal records (contents and times of change) give equal bytes with the same packages. InputError for another ending
    than .tar.zst, .tar.gz or .tar.xz, for an `out` that exists, and where no run is found.
    """
    suffix = suffix_of(out)
    if suffix is None:
        raise InputError(str(out), "", out.suffix or "no ending", f"a name that ends with {', '.join(SUFFIXES)}")
    if out.exists() or out.is_symlink():
        raise InputError(str(out), "", "a file that exists", "a new name")
    contents = contents_of(folders)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".longhaul-archive.", dir=out.parent) as temporary:
        stage = Path(temporary) / "stage"
        members, left_out = _with_extras(contents, stage, baseline, report)
        part = Path(temporary) / "archive"
        _write(part, suffix, _root(out), members, left_out)
        part.chmod(0o644)
        part.rename(out)
    return Written(out, out.stat().st_size, contents.finished, contents.unfinished, left_out)


def _root(out: Path) -> str:
    """The folder that everything in the archive lies in."""
    return re.sub(r"[^\w.-]+", "-", stem_of(out), flags=re.ASCII).strip(".-")[:100] or "archive"


def _with_extras(
    contents: Contents, stage: Path, baseline: str | None, report: bool
) -> tuple[tuple[Member, ...], tuple[LeftOut, ...]]:
    """The records, their report, which is made beside a copy of them, and the list of packages."""
    latest = max(member.changed for member in contents.members)
    left_out = contents.left_out
    extra = [Member("packages.txt", _packages().encode(), latest)]
    if contents.finished and report:
        for member in contents.members:
            path = stage / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.content)
            os.utime(path, (member.changed, member.changed))
        build_report([stage / "runs"], stage / "report", baseline=baseline, predict=True)
        inside = f"{stage}{os.sep}".encode()
        for name in files_under(stage / "report"):
            content = (stage / "report" / name).read_bytes().replace(inside, b"")
            extra.append(Member(f"report/{name}", content, latest))
        shutil.rmtree(stage)
    elif report:
        left_out = (*left_out, LeftOut("report", "no run is finished"))
    return tuple(sorted((*contents.members, *extra), key=lambda member: member.name)), left_out


def _packages() -> str:
    found = {f"{name}=={one.version}" for one in metadata.distributions() if (name := one.metadata["Name"]) is not None}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _write(path: Path, suffix: str, root: str, members: Sequence[Member], left_out: Sequence[LeftOut]) -> None:
    document = {
        "format": FORMAT,
        "written_by": f"longhaul {metadata.version('longhaul-bench')}",
        "files": {
            member.name: {"bytes": len(member.content), "sha256": hashlib.sha256(member.content).hexdigest()}
            for member in members
        },
        "left_out": {"/".join(Path(one.path).parts[-3:]): one.why for one in left_out},
    }
    manifest = Member(MANIFEST_NAME, (json.dumps(document, indent=1) + "\n").encode(), members[0].changed)
    with tar_to_write(path, suffix) as tar:
        for member in (manifest, *members):
            entry = tarfile.TarInfo(f"{root}/{member.name}")
            entry.size, entry.mtime, entry.mode = len(member.content), member.changed, 0o644
            tar.addfile(entry, io.BytesIO(member.content))
