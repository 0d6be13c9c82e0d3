"""`longhaul show` tells what a run did, also where it failed, and prints no control character of a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netsim.errors import InputError
from reports.story import story
from tests.reports.made_up import RecordedRun


def test_a_finished_run_is_told_with_caveats_and_events(tmp_path: Path) -> None:
    run = RecordedRun(steps=20, changes={"marks": ["interrupted, and resumed from step 8"]}).write(tmp_path)
    (run / "events.jsonl").write_text(json.dumps({"at": 2.5, "kind": "gate", "passed": True}) + "\n")
    text = "\n".join(story(run))
    assert "valid: 20 steps" in text
    assert "caveat: interrupted, and resumed from step 8" in text
    assert "2.500  gate: passed True" in text
    assert "rank-0" in text


def test_a_failed_run_is_told_with_its_reason_and_logs(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path)
    (run / "result.json").unlink()
    (run / "failure.json").write_text(json.dumps({"reason": "trainer 1 ended with 3"}))
    (run / "rank-1" / "log.txt").write_text("one\ntwo\n\x1b[31mout of memory\n")
    text = "\n".join(story(run, 2))
    assert "failed or unfinished: trainer 1 ended with 3" in text
    assert "| two" in text
    assert "| one" not in text
    assert "out of memory" in text
    assert "\x1b" not in text
    assert "step 20" in text


def test_link_checks_are_told_with_what_failed(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path)
    links = json.loads((run / "links.json").read_text())
    links["after"]["links"][0] |= {"passed": False, "why": ["RTT 95 ms, expected 80 ms"]}
    (run / "links.json").write_text(json.dumps(links))
    text = "\n".join(story(run))
    assert "links before the run: all 12 within tolerance" in text
    assert "links after the run: 1 of 12 out of tolerance\n  a to b: RTT 95 ms, expected 80 ms" in text


def test_a_second_worker_of_a_site_is_told_with_its_site(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path)
    (run / "rank-1.1").mkdir()
    assert any(line.startswith("rank-1.1 at b: no step") for line in story(run))


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path)
    (tmp_path / "secret").write_text("do not tell\n")
    (run / "rank-1" / "log.txt").symlink_to(tmp_path / "secret")
    assert "do not tell" not in "\n".join(story(run))


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        story(tmp_path)
