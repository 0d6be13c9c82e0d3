"""Causal self-attention with rotary position embeddings (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0


class Rotary(nn.Module):
    """The angles of positions 0 to `sequence` - 1 for heads of `head_width` numbers, which are turned in pairs."""

    def __init__(self, sequence: int, head_width: int) -> None:
        super().__init__()
        pairs = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
        angles = torch.outer(torch.arange(sequence, dtype=torch.float64), ROTARY_BASE**-pairs)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x_BTNC: Tensor) -> Tensor:
        """(batch, time, heads, head width), turned by position; pair i is made of the numbers i and i + width/2."""
        cos = self.get_buffer("cos")[: x_BTNC.shape[1], None, :].to(x_BTNC.dtype)
        sin = self.get_buffer("sin")[: x_BTNC.shape[1], None, :].to(x_BTNC.dtype)
        first, second = x_BTNC.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        B, T, D = x_BTD.shape
        # One product instead of three: on a CPU small products are bound by the calls.
        projections = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        qkv = F.linear(x_BTD, projections).view(B, T, 3 * self.heads, D // self.heads)
        turned, value = torch.split(qkv, [2 * self.heads, self.heads], dim=2)
        query, key = torch.split(rotary(turned).transpose(1, 2), self.heads, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
        y_BTD: Tensor = self.output(mixed.transpose(1, 2).reshape(B, T, D))
        return y_BTD
