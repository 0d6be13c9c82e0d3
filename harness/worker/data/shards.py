"""Reading tokens: a worker's share of the training text, and the held-out text.

Files are memory-mapped, uint16 or, where their names say so, uint32.

What a step reads is a function of (seed, rank, step) alone, so a resumed run reads what it would have read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsim.errors import InputError
from netsim.traffic import split

Batch = tuple[Tensor, Tensor]  # inputs (B, T) and targets (B, T), int64; a target is the token after its input


class Shard:
    """One worker's training tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens = _open(path)
        self._epoch: tuple[tuple[int, ...], NDArray[np.int64]] | None = None

    def batch(self, step: int, batch: int, sequence: int, seed: int, rank: int) -> Batch:
        """The sequences of local step `step` (from 1).

        An epoch goes through the shard's windows of `sequence` tokens once, in random order; the next epoch starts the
        windows elsewhere. Raises InputError for a shard shorter than two sequences.
        """
        assert step >= 1
        windows = (len(self.tokens) - sequence) // sequence
        if windows < 1:
            raise InputError(str(self.path), "", f"{len(self.tokens)} tokens", f"at least {2 * sequence}")
        starts = np.empty(batch, dtype=np.int64)
        for place, sample in enumerate(range((step - 1) * batch, step * batch)):
            epoch, window = divmod(sample, windows)
            starts[place] = self._starts(windows, sequence, (seed, rank, epoch))[window]
        return _cut(self.tokens, starts, sequence)

    def _starts(self, windows: int, sequence: int, key: tuple[int, int, int]) -> NDArray[np.int64]:
        """Where the windows of one epoch begin, in reading order."""
        if self._epoch is None or self._epoch[0] != (windows, sequence, *key):
            digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "big"))
            starts = rng.integers(sequence) + sequence * rng.permutation(windows)
            self._epoch = (windows, sequence, *key), starts
        return self._epoch[1]


def held_out_batches(path: Path, sequences: int, batch: int, sequence: int, rank: int, world: int) -> list[Batch]:
    """This worker's part of the held-out `sequences`, in batches of at most `batch`.

    All workers' sequences together depend on neither rank, world nor batch: windows spread evenly over the file, all of
    them when it has fewer. Parts may differ by one sequence, so weigh a batch by its size. A part may be empty.
    """
    tokens = _open(path)
    windows = (len(tokens) - 1) // sequence
    if windows < 1:
        raise InputError(str(path), "", f"{len(tokens)} tokens", f"held-out text of at least {sequence + 1} tokens")
    total = min(sequences, windows)
    starts = np.arange(total, dtype=np.int64) * windows // total * sequence
    first, last = split(total, world)[rank]
    return [_cut(tokens, starts[at : min(at + batch, last)], sequence) for at in range(first, last, batch)]


def dtype_of(path: Path) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The type of a prepared file's tokens."""
    return np.dtype("<u4") if path.suffix == ".u32" else np.dtype("<u2")


def _open(path: Path) -> NDArray[np.uint16] | NDArray[np.uint32]:
    try:
        return np.memmap(path, dtype=dtype_of(path), mode="r")
    except (OSError, ValueError) as error:
        raise InputError(str(path), "", error, "a file of tokens") from None


def _cut(tokens: NDArray[np.uint16] | NDArray[np.uint32], starts: NDArray[np.int64], sequence: int) -> Batch:
    rows = tokens[starts[:, None] + np.arange(sequence + 1)].astype(np.int64)
    both = torch.from_numpy(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
