"""Archives: equal bytes for equal records, read anywhere, with a page whose links work inside."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from longhaul.cli import build
from netsim.errors import InputError
from reports.sharing.archive_reader import kept_records, unpack
from reports.sharing.archive_writer import Written, write_archive
from tests.reports.made_up import RecordedRun, write_grid

pytestmark = pytest.mark.slow  # a report is made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one that was killed, a link, and files of others."""
    suite = tmp_path_factory.mktemp("records") / "runs" / "made-up"
    write_grid(suite, ("ddp", "diloco"), seeds=(1,), steps=20)
    killed = RecordedRun("photon", "photon", steps=20).write(suite)
    (killed / "result.json").unlink()
    with (killed / "rank-0" / "steps.jsonl").open("a") as file:
        file.write('{"step": 21, "clo')
    (killed / "rank-1" / "steps.jsonl").unlink()
    (killed / "rank-1" / "steps.jsonl").symlink_to("/etc/passwd")
    (killed / "notes.txt").write_text("mine")
    (killed / "rank-0" / "job.json").write_text('{"directory": "/home/somebody"}')
    (suite / "suite.json").write_text('{"suite": "made-up", "baseline": "ddp", "description": ""}')
    return suite


@pytest.fixture(scope="module")
def archived(runs: Path) -> Written:
    return write_archive([runs], runs.parent.parent / "made-up.tar.gz")


def test_an_archive_says_what_it_leaves_out(archived: Written) -> None:
    assert (archived.finished, archived.unfinished) == (2, 1)
    assert sorted((Path(one.path).name, one.why) for one in archived.left_out) == [
        ("notes.txt", "not a file of a record"),
        ("steps.jsonl", "a link, which might lead anywhere"),
    ]


def test_an_archive_holds_records_report_and_packages(archived: Written, tmp_path: Path) -> None:
    manifest = unpack(archived.path, tmp_path / "x")
    names = set(manifest.files)
    assert {"packages.txt", "report/index.html", "report/report.json", "runs/made-up/suite.json"} <= names
    assert "numpy==" in (tmp_path / "x" / "packages.txt").read_text()
    assert not any("job.json" in name for name in names)
    texts = [path.read_bytes() for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert not any(b"somebody" in text or str(archived.path.parent).encode() in text for text in texts)


def test_an_archive_can_do_without_the_report(runs: Path, tmp_path: Path) -> None:
    written = write_archive([runs], tmp_path / "records.tar.xz", report=False)
    names = unpack(written.path, tmp_path / "x").files
    assert "report" not in {one.path for one in written.left_out}
    assert "runs/made-up/suite.json" in names
    assert not any(name.startswith("report/") for name in names)


def test_the_links_of_an_archived_page_lead_to_its_records(archived: Written, tmp_path: Path) -> None:
    unpack(archived.path, tmp_path / "x")
    page = (tmp_path / "x" / "report" / "index.html").read_text()
    links = {unquote(part.split('"')[0]) for part in page.split('href="')[1:] if part.startswith("../")}
    assert len(links) == 3
    assert all((tmp_path / "x" / "report" / link).is_dir() for link in links)


@pytest.mark.parametrize(("suffix", "report"), [(".tar.zst", True), (".tar.xz", False)])
def test_equal_records_give_equal_bytes(runs: Path, tmp_path: Path, suffix: str, report: bool) -> None:
    """Whichever compression: that a report is the same, one of them shows."""
    copy = tmp_path / "copy" / "runs" / "made-up"
    shutil.copytree(runs, copy, symlinks=True)  # which keeps the times of change
    for place, source in (("a", runs), ("b", copy)):
        (tmp_path / place).mkdir()
        write_archive([source], tmp_path / place / f"x{suffix}", report=report)
    first, second = ((tmp_path / place / f"x{suffix}").read_bytes() for place in "ab")
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    unpack(tmp_path / "a" / f"x{suffix}", tmp_path / "unpacked")


def test_a_report_from_an_archive_keeps_its_records(archived: Written, tmp_path: Path) -> None:
    folders, out = kept_records([archived.path], tmp_path / "report")
    assert out == tmp_path / "report"
    assert folders == [tmp_path / "report.records" / "made-up" / "runs"]
    assert kept_records([archived.path], out) == (folders, out)  # what stands there is the same
    (folders[0] / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files than the archive's"):
        kept_records([archived.path], out)
    assert (folders[0] / "mine.txt").read_text() == "mine"


def test_an_archives_runs_are_listed_and_told(archived: Written) -> None:
    def show(*arguments: str) -> str:
        answer = CliRunner().invoke(build("show"), ["show", str(archived.path), *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert "photon-wan-s1-0123456789: unfinished" in show()
    told = show("diloco-wan-s1-0123456789")
    assert "valid: 20 steps" in told
    assert "/tmp" not in told.replace(str(archived.path), "")


def test_an_archive_is_never_written_over(archived: Written, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file that exists"):
        write_archive([runs], archived.path)
    with pytest.raises(InputError, match=r"\.tar\.zst"):
        write_archive([runs], tmp_path / "x.zip")
    with pytest.raises(InputError, match="no run"):
        write_archive([tmp_path], tmp_path / "x.tar.gz")
    assert list(tmp_path.iterdir()) == []
