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


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        story(tmp_path)
