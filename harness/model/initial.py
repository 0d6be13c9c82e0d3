"""Initial values: a function of the seed and the parameter's name alone, so all holders start alike."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

EMBEDDING_STD = 0.02


def normal(shape: tuple[int, ...], std: float, seed: int, name: str) -> Tensor:
    """fp32 numbers of N(0, std^2) of this shape."""
    return torch.randn(shape, generator=_generator(seed, name)) * std


def expert(shape: tuple[int, int], std: float, seed: int, name: str, index: int) -> Tensor:
    """One expert's matrix: the same whoever holds it, and whichever other experts the holder has."""
    return normal(shape, std, seed, f"{name}[{index}]")


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
