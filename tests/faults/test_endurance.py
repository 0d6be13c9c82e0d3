"""Endurance: what counts as flat, and how rows are stored and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.bench.endurance import (
    CASES,
    EnduranceRow,
    Held,
    LongRun,
    Sample,
    held_of,
    stored_endurance,
    while_training,
)
from harness.bench.rows import append_row
from harness.spec.suite import load_suite
from longhaul.commands.benches.bench_endurance import described
from netsim.errors import InputError
from reports.pages.endurance_section import endurance_section

FLAT = Held("trainer", 3e8, 3.01e8, 20, 21)
ROW = EnduranceRow("5,000 steps", "netns", 2, 1, 5000, 1, 60.0, 4_000_000, [FLAT])


def test_what_grows_is_not_flat() -> None:
    assert FLAT.flat
    assert not replace(FLAT, late_bytes=3.3e8).flat
    assert not replace(FLAT, late_descriptors=23).flat
    assert replace(FLAT, early_bytes=1e7, late_bytes=1.7e7).flat  # 7 MB more are a matter of the moment
    assert ROW.passed
    assert not replace(ROW, complete=0).passed


def test_records_have_a_bound_by_run_site_and_step() -> None:
    assert ROW.record_bound == 64_000 + 2 * (16_000 + 5000 * 512)
    assert not replace(ROW, record_bytes=6_000_000).passed
    assert "(too much)" in described(replace(ROW, record_bytes=6_000_000))
    assert "ABOVE the bound of 5.216 MB" in endurance_section([replace(ROW, record_bytes=6_000_000)])


def test_the_start_is_no_part_of_the_comparison() -> None:
    samples = [{"runner": (number, 5)} for number in (1, 1, 100, 100, 100, 100, 102, 102)]
    assert held_of(samples) == [Held("runner", 100, 102, 5, 5)]
    assert held_of(samples[:1]) == []


def test_taking_down_is_no_part_of_the_comparison() -> None:
    done: list[Sample] = [{"trainer": (1, 4), "runner": (1, 72)}] * 4  # with no peers any more
    gone: list[Sample] = [{"runner": (1, 3)}] * 4
    samples: list[Sample] = [{"trainer": (1, 138), "runner": (1, 72)}] * 4 + done + gone
    assert held_of(while_training(samples)) == [Held("runner", 1, 1, 72, 72), Held("trainer", 1, 1, 138, 138)]
    assert while_training(gone) == gone


def test_the_last_row_of_a_case_counts(tmp_path: Path) -> None:
    results = tmp_path / "endurance.jsonl"
    for row in (ROW, replace(ROW, seconds=50.0)):
        append_row(results, row)
    assert stored_endurance(results) == [replace(ROW, seconds=50.0)]
    results.write_text('{"name": 3}\n')
    with pytest.raises(InputError, match="bench endurance"):
        stored_endurance(results)


def test_the_page_says_what_was_held() -> None:
    text = endurance_section([ROW])
    assert "| 5,000 steps | netns | trainer | 300 MB | 301 MB | 20 | 21 | yes |" in text
    assert "400 B per step and worker" in text
    assert "(grows)" in described(replace(ROW, held=[replace(FLAT, late_bytes=4e8)]))
    assert endurance_section([]) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_a_suite(case: LongRun, tmp_path: Path) -> None:
    (path := tmp_path / "endurance.yaml").write_text(yaml.safe_dump(case.suite()))
    assert len(load_suite(path).cells) == case.cells
