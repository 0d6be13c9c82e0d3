"""Reading batches: a function of seed, rank and step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.worker.data import Shard, held_out_batches
from netsim.errors import InputError


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard whose token at place i is i."""
    path = tmp_path_factory.mktemp("shard") / "shard-0.bin"
    np.arange(1003, dtype="<u2").tofile(path)
    return path


def test_targets_are_the_tokens_after_the_inputs(numbers: Path) -> None:
    inputs, targets = Shard(numbers).batch(3, 5, 16, seed=1, rank=0)
    assert inputs.shape == targets.shape == (5, 16)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs.diff(dim=1), torch.ones(5, 15, dtype=torch.int64))


def test_a_step_reads_the_same_whatever_was_read_before(numbers: Path) -> None:
    shard = Shard(numbers)
    in_order = [shard.batch(step, 4, 16, seed=1, rank=2) for step in range(1, 60)]
    for step in (59, 1, 30, 17):
        again = Shard(numbers).batch(step, 4, 16, seed=1, rank=2)
        assert torch.equal(again[0], in_order[step - 1][0])


def test_seed_and_rank_change_the_order(numbers: Path) -> None:
    shard = Shard(numbers)
    found = [shard.batch(1, 8, 16, seed, rank)[0].tolist() for seed, rank in ((1, 0), (2, 0), (1, 1), (-1, 0))]
    assert len({str(batch) for batch in found}) == 4


def test_an_epoch_reads_every_window_once(numbers: Path) -> None:
    """An epoch reads every window once and the next starts elsewhere."""
    shard, windows = Shard(numbers), (1003 - 16) // 16
    starts = [int(shard.batch(step, 1, 16, 1, 0)[0][0, 0]) for step in range(1, 3 * windows + 1)]
    phases = []
    for epoch in range(3):
        read = sorted(starts[epoch * windows : (epoch + 1) * windows])
        assert np.diff(read).tolist() == [16] * (windows - 1)
        phases.append(read[0])
    assert len(set(phases)) > 1


@settings(max_examples=200, deadline=None)
@given(step=st.integers(1, 10**9), batch=st.integers(1, 9), sequence=st.integers(2, 501), rank=st.integers(0, 99))
def test_no_batch_reaches_beyond_the_shard(numbers: Path, step: int, batch: int, sequence: int, rank: int) -> None:
    inputs, targets = Shard(numbers).batch(step, batch, sequence, 7, rank)
    assert int(inputs.min()) >= 0
    assert int(targets.max()) <= 1002


def test_a_shard_shorter_than_two_sequences_is_refused(numbers: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1004"):
        Shard(numbers).batch(1, 1, 502, 1, 0)
    with pytest.raises(InputError, match="missing"):
        Shard(tmp_path / "missing.bin")
    (tmp_path / "empty.bin").touch()
    with pytest.raises(InputError, match="empty"):
        Shard(tmp_path / "empty.bin")


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 160), batch=st.integers(1, 8), world=st.integers(1, 40))
def test_the_held_out_set_depends_on_neither_batch_nor_world(numbers: Path, count: int, batch: int, world: int) -> None:
    (alone, together) = (
        [
            row
            for rank in range(members)
            for inputs, _ in held_out_batches(numbers, count, size, 16, rank, members)
            for row in inputs[:, 0].tolist()
        ]
        for members, size in ((1, 4), (world, batch))
    )
    assert together == alone
    assert len(alone) == min(count, 1002 // 16) == len(set(alone))


def test_held_out_parts_differ_by_at_most_one_sequence(numbers: Path) -> None:
    """Held out parts differ by one sequence at most and batches are full."""
    parts = [held_out_batches(numbers, 20, 4, 16, rank, 3) for rank in range(3)]
    assert [[len(inputs) for inputs, _ in part] for part in parts] == [[4, 3], [4, 3], [4, 2]]


def test_held_out_text_that_is_too_short_is_refused(numbers: Path) -> None:
    with pytest.raises(InputError, match="1004"):
        held_out_batches(numbers, 1, 1, 1003, 0, 1)
