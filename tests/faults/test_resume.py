"""An interrupted run goes on from its checkpoints as if nothing had happened, and from nothing but sound ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from algorithms.worker import Worker
from harness.records.layout import RunDirectory
from harness.records.run_record import Step, read_lines
from harness.spec.run_spec import RunSpec
from harness.worker.job import CheckpointOwner
from harness.worker.resume import Progress, common_step, restore, save, truncate_log, valid_steps
from netsim.errors import InputError
from tests.faults.loopback import spec_of, train

# tests/algorithms/test_workers.py sees for every method that a worker's state is whole. Here is one of each kind of
# what a trainer's process keeps besides: torch's own DDP, transfers under way, an optimizer of its own, experts.
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("ddp", {}),
    ("streaming_diloco", {"sync_every": 3, "overlap": 1}),
    ("lordo", {"sync_every": 3}),
    ("fomoe", {"sync_every": 3, "replication": 1}),
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


def owners(spec: RunSpec, run: Path, name: str = "loopback") -> list[CheckpointOwner]:
    return [CheckpointOwner.of(RunDirectory(run).worker(rank), spec, name, rank, 2, "") for rank in range(2)]


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
    assert common_step(owners(spec, tmp_path / "again")) == 4
    after = train(spec, tmp_path / "again", cache, resume_from=4)
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    assert [s.final_loss for s in after] == [s.final_loss for s in before]
    assert [s.payload_bytes for s in after] == [s.payload_bytes for s in before]
    assert [s.tokens for s in after] == [s.tokens for s in before]
    for summary in after:
        assert summary.explained, summary.unaccounted_seconds


@pytest.mark.slow
def test_runs_resume_from_a_step_that_all_can_restore(tmp_path: Path, cache: Path) -> None:
    """Only a step that every worker can restore is resumed from."""
    spec = spec_of(tmp_path, "diloco", {"sync_every": 3}, train={"checkpoint_every": 2})
    run = tmp_path / "run"
    train(spec, run, cache)
    assert common_step(owners(spec, run)) == 6
    newest = RunDirectory(run).worker(1).checkpoints / "step-00000006" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert common_step(owners(spec, run)) == 4
    assert common_step(owners(spec, run, "another run")) == 0
    shutil.rmtree(RunDirectory(run).worker(0).checkpoints)
    assert common_step(owners(spec, run)) == 0


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    """A line that was being written when the process died is cut off."""
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert truncate_log(path, 2) == [{"step": 3}]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert truncate_log(tmp_path / "none.jsonl", 2) == []


def saved(tmp_path: Path, **changes: Any) -> list[CheckpointOwner]:
    """Two workers with a checkpoint of step 2; `changes` of its progress, under an honest hash."""
    found = owners(spec_of(tmp_path, "ddp", {}), tmp_path / "run")
    for owner in found:
        owner.folder.mkdir(parents=True)
        progress = Progress(step=2, tokens=2 * owner.tokens_per_step, clock=1.0, seconds={"compute": 1.0})
        save(owner, replace(progress, **changes), torch.nn.Linear(2, 2), {})
    return found


def test_checkpoints_of_two_ranks_cannot_be_swapped(tmp_path: Path) -> None:
    first, second = saved(tmp_path)
    assert common_step([first, second]) == 2
    first.folder.rename(tmp_path / "between")
    second.folder.rename(first.folder)
    (tmp_path / "between").rename(second.folder)
    assert valid_steps(first) == valid_steps(second) == set()
    with pytest.raises(InputError, match="rank: found 1; allowed: that of this worker, 0"):
        restore(first, 2, torch.nn.Linear(2, 2), cast(Worker, None))


@pytest.mark.parametrize("field", ["run", "world", "code"])
def test_a_checkpoint_of_another_run_world_or_code_is_refused(tmp_path: Path, field: str) -> None:
    owner = saved(tmp_path)[0]
    other: Any = {field: 3 if field == "world" else "another"}
    assert valid_steps(replace(owner, **other)) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": -1},
        {"tokens": 10**15},
        {"clock": float("nan")},
        {"clock": -1.0},
        {"seconds": {"compute": -5.0}},
        {"seconds": {"elsewhere": 1.0}},
        {"payload_bytes": -1},
        {"overruns": 2**70},
    ],
)
def test_nonsense_progress_with_an_honest_hash_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert valid_steps(saved(tmp_path, **changes)[0]) == set()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: shape"):
        restore(saved(tmp_path)[0], 2, torch.nn.Linear(3, 2), cast(Worker, None))
