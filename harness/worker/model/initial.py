"""Initial values: a function of the seed and the parameter's name alone, so all holders start alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A product without bias, not filled in yet; torch's own filling would be overwritten.

    The storage is given by hand: `to_empty` would import sympy, which takes longer than to build a small model.
    """
    with torch.device("meta"):
        product = nn.Linear(inputs, outputs, bias=False)
    product.weight = nn.Parameter(torch.empty(outputs, inputs))
    return product


def embedding(tokens: int, width: int) -> nn.Embedding:
    """Not filled in yet; torch's normal filling of a tensor without storage would import a compiler (70 MB)."""
    return nn.Embedding(tokens, width, _weight=torch.empty(tokens, width))


def branch_std(layers: int, fan_in: int) -> float:
    """For what ends a residual branch: small, so that the stream's variance does not grow with depth (GPT-2)."""
    return float((2 * layers * fan_in) ** -0.5)


def normal(shape: Sequence[int], std: float, seed: int, name: str) -> Tensor:
    """fp32 numbers of N(0, std^2). An expert's name has its id, so it is the same whoever holds it, among whichever."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randn(tuple(shape), generator=generator) * std
