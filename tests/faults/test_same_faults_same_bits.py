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


def once(
    folder: Path,
    cache: Path,
    method: str,
    options: dict[str, Any],
    faults: list[dict[str, Any]],
    **train: int,
) -> tuple[Result, list[list[Any]]]:
    folder.mkdir()
    spec = spec_of(
        folder,
        method,
        options,
        sites=3,
        model="tiny",
        faults=faults,
        train={"steps": 44, "checkpoint_every": 4, **train},
        compute={"mode": "paced", "step_seconds": 0.1},
        network={"timeout_seconds": 60},
    )
    result, _ = run_through(spec, folder / "run", cache)
    assert result.valid, result.why_invalid
    return result, trajectory(folder / "run")


@pytest.mark.parametrize(("method", "options"), [("diloco", {"sync_every": 4}), ("ddp", {})])
def test_the_same_faults_give_the_same_bits(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    """Whatever the order in which workers notice, and however long a program takes to start."""
    first, steps = once(tmp_path / "first", tmp_path / "cache", method, options, FAULTS)
    second, again = once(tmp_path / "second", tmp_path / "cache", method, options, FAULTS)
    assert steps == again
    assert (first.final_loss, first.tokens, first.tokens_lost) == (second.final_loss, second.tokens, second.tokens_lost)
    assert first.generations == second.generations == 5
    assert first.absences == second.absences
    assert first.absences is not None
    assert (first.absences[0].site, first.absences[0].to_step) == ("b", 28 if method == "diloco" else 26)


@pytest.mark.parametrize(("away", "to"), [("10 s", 160), ("1 s", None)])
def test_who_is_back_before_it_is_missed_is_let_in_when_due(tmp_path: Path, away: str, to: int | None) -> None:
    """Missed at step 80, of 0.1 s, when it has started long since."""
    fault = {"kind": "crash", "site": "b", "step": 2, "back_after": away}
    train = {"steps": 162, "evaluate_every": 80, "checkpoint_every": 80}
    result, _ = once(tmp_path / "run", tmp_path / "cache", "diloco", {"sync_every": 80}, [fault], **train)
    assert [one.to_step for one in result.absences or ()] == ([] if to is None else [to])
    assert result.generations == (2 if to is None else 3)
