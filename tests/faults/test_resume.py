"""An interrupted run goes on from its checkpoints as if nothing had happened, and from nothing but sound ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.records.run_record import Step, read_lines
from harness.spec.run_spec import RunSpec
from harness.worker.resume import checkpoints_of, common_step, truncate_log
from tests.faults.loopback import spec_of, train

METHODS: list[Any] = [
    ("ddp", {}),
    ("diloco", {"sync_every": 3}),
    ("streaming_diloco", {"sync_every": 3, "overlap": 1}),
    pytest.param("photon", {"sync_every": 3, "server_optimizer": "fedadam"}, marks=pytest.mark.slow),
    pytest.param("lordo", {"sync_every": 3}, marks=pytest.mark.slow),
    pytest.param("lowrank_ddp", {"send": "projected", "refresh_every": 3}, marks=pytest.mark.slow),
    pytest.param("desloc", {"sync_every": 2, "outer_momentum": 0.5}, marks=pytest.mark.slow),
    pytest.param("fomoe", {"sync_every": 3, "replication": 1}, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def losses(directory: Path) -> list[list[Any]]:
    """Everything about the trajectory that does not depend on time, of both workers."""
    return [
        [(s.step, s.loss, s.evaluation_loss, s.tokens) for s in read_lines(path, Step)]
        for path in sorted(directory.glob("rank-*/steps.jsonl"))
    ]


def interrupted(spec: RunSpec, whole: Path, directory: Path, step: int) -> None:
    """A copy of a run as it would stand had it been killed after the checkpoint of `step`."""
    shutil.copytree(whole, directory)
    for rank in range(2):
        truncate_log(directory / f"rank-{rank}" / "ledger.jsonl", step)
        assert truncate_log(directory / f"rank-{rank}" / "steps.jsonl", step)
        (directory / f"rank-{rank}" / "summary.json").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), METHODS)
def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(
    tmp_path: Path, cache: Path, method: str, options: dict[str, Any]
) -> None:
    spec = spec_of(tmp_path, method, options, train={"checkpoint_every": 4})
    before = train(spec, tmp_path / "whole", cache)
    interrupted(spec, tmp_path / "whole", tmp_path / "again", 4)
    assert common_step(tmp_path / "again", range(2), "loopback") == 4
    after = train(spec, tmp_path / "again", cache, resume_from=4)
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    assert [s.final_loss for s in after] == [s.final_loss for s in before]
    assert [s.payload_bytes for s in after] == [s.payload_bytes for s in before]
    assert [s.tokens for s in after] == [s.tokens for s in before]
    for summary in after:
        assert abs(summary.unaccounted_seconds) < 0.05 * summary.wall_seconds


@pytest.mark.slow
def test_only_a_step_that_every_worker_can_restore_is_resumed_from(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path, "diloco", {"sync_every": 3}, train={"checkpoint_every": 2})
    run = tmp_path / "run"
    train(spec, run, cache)
    assert common_step(run, range(2), "loopback") == 6
    newest = checkpoints_of(run / "rank-1") / "step-00000006" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert common_step(run, range(2), "loopback") == 4
    assert common_step(run, range(2), "another run") == 0
    shutil.rmtree(checkpoints_of(run / "rank-0"))
    assert common_step(run, range(2), "loopback") == 0


def test_a_line_that_was_being_written_when_the_process_died_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert truncate_log(path, 2) == [{"step": 3}]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert truncate_log(tmp_path / "none.jsonl", 2) == []
