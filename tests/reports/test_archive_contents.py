"""What goes into an archive, and that nothing is unpacked that should not be."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from netsim.errors import InputError
from reports.sharing.archive_manifest import is_plain
from reports.sharing.archive_reader import record_folders, unpack
from reports.sharing.archive_writer import write_archive
from reports.sharing.contents import contents_of
from tests.reports.made_up import RecordedRun


def test_records_without_a_result_are_archived_without_a_page(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path / "runs" / "made-up")
    (run / "result.json").unlink()
    found = write_archive([tmp_path / "runs"], tmp_path / "x.tar.gz")
    assert [(one.path, one.why) for one in found.left_out] == [("report", "no run is finished")]
    with record_folders([found.path]) as (folder,):
        assert [path.name for path in (folder / "made-up").iterdir()] == [run.name]


def test_suites_of_one_name_from_two_places_stay_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        RecordedRun(steps=20).write(tmp_path / place / "made-up")
    names = {member.name.split("/")[1] for member in contents_of([tmp_path / "a", tmp_path / "b"]).members}
    assert names == {"made-up", "made-up-2"}


def forged(path: Path, change: Callable[[dict[str, bytes], list[tarfile.TarInfo]], None]) -> Path:
    """An archive of one file, changed before it is packed: contents by name, and further entries without content."""
    contents = {"runs/a/note.txt": b"hello"}
    extra: list[tarfile.TarInfo] = []
    listed = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
    contents = {"archive.json": json.dumps({"format": 1, "files": listed}).encode(), **contents}
    change(contents, extra)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"x/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra:
            tar.addfile(entry)
    return path


def link(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    extra.append(tarfile.TarInfo("x/runs/link"))
    extra[-1].type, extra[-1].linkname = tarfile.SYMTYPE, "/etc/passwd"


def outside(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    contents["../../evil.txt"] = b"evil"


def listed_outside(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    document = json.loads(contents["archive.json"])
    document["files"]["../evil.txt"] = document["files"]["runs/a/note.txt"]
    contents["archive.json"] = json.dumps(document).encode()


def unlisted(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    contents["more.txt"] = b"more"


def altered(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    contents["runs/a/note.txt"] = b"jello"


def missing(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    del contents["runs/a/note.txt"]


def newer(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    contents["archive.json"] = json.dumps({"format": 2, "files": {}}).encode()


def foreign(contents: dict[str, bytes], extra: list[tarfile.TarInfo]) -> None:
    del contents["archive.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (link, "a link, a folder or a device"),
        (outside, "plain files inside the archive"),
        (listed_outside, "relative paths inside the archive"),
        (unlisted, "does not list"),
        (altered, "other bytes than were archived"),
        (missing, "no runs/a/note.txt"),
        (newer, "a newer longhaul"),
        (foreign, "begins with archive.json"),
    ],
)
def test_a_forged_archive_is_refused_whole(
    tmp_path: Path, change: Callable[[dict[str, bytes], list[tarfile.TarInfo]], None], said: str
) -> None:
    archive = forged(tmp_path / "x.tar.gz", change)
    with pytest.raises(InputError, match=said):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("suffix", [".tar.zst", ".tar.gz", ".tar.xz"])
def test_a_cut_archive_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    run = RecordedRun(steps=20).write(tmp_path / "runs" / "made-up")
    (run / "result.json").unlink()
    whole = write_archive([tmp_path / "runs"], tmp_path / f"whole{suffix}").path
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"damaged|no runs|begins with|no packages"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a/../b", "a//b", "./a", "a\\b", "a/", ".."])
def test_a_name_that_leads_elsewhere_is_not_plain(name: str) -> None:
    assert not is_plain(name)
    assert is_plain("runs/ünï/steps.jsonl")
