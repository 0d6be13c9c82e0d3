"""Runs with faults repeat to the bit: who is lost, when it returns and what it costs is no race of clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.records.run_record import Result, Step, read_lines
from tests.faults.loopback import run_through, spec_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAULTS = [
    {"kind": "crash", "site": "b", "step": 6, "back_after": "2 s"},  # of paced steps: let in again from step 26 on
    {"kind": "corrupt", "site": "a", "step": 34},
]


def trajectory(directory: Path) -> list[list[Any]]:
    """Every worker's steps that count, without their times."""
    paths = [directory / f"rank-{rank}" / "steps.jsonl" for rank in range(3)]
    return [[(s.step, s.loss, s.evaluation_loss, s.tokens) for s in read_lines(path, Step)] for path in paths]


def once(folder: Path, cache: Path, method: str, options: dict[str, Any], delay: str) -> tuple[Result, list[list[Any]]]:
    folder.mkdir()
    spec = spec_of(
        folder,
        method,
        options,
        sites=3,
        model="tiny",
        faults=FAULTS,
        train={"steps": 44, "checkpoint_every": 4},
        compute={"mode": "paced", "step_seconds": 0.1},
        network={"timeout_seconds": 60},
    )
    spec.topology["defaults"]["delay"] = delay
    result, _ = run_through(spec, folder / "run", cache)
    assert result.valid, result.why_invalid
    return result, trajectory(folder / "run")


@pytest.mark.parametrize(("method", "options"), [("diloco", {"sync_every": 4}), ("ddp", {})])
def test_the_same_faults_give_the_same_bits(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    """Whatever the order in which workers notice, and however long a program takes to start."""
    first, steps = once(tmp_path / "first", tmp_path / "cache", method, options, "0.1 ms")
    second, again = once(tmp_path / "second", tmp_path / "cache", method, options, "0.1 ms")
    assert steps == again
    assert (first.final_loss, first.tokens, first.tokens_lost) == (second.final_loss, second.tokens, second.tokens_lost)
    assert first.generations == second.generations == 5
    assert first.absences == second.absences
    assert first.absences is not None
    assert (first.absences[0].site, first.absences[0].to_step) == ("b", 28 if method == "diloco" else 26)
