"""Causal self-attention with rotary position embeddings (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.model import initial

ROTARY_BASE = 10_000.0


class Rotary(nn.Module):
    """The angles of positions 0 to `sequence` - 1 for heads of `head_width` numbers, which are turned in pairs."""

    def __init__(self, sequence: int, head_width: int) -> None:
        super().__init__()
        pairs = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
        angles = torch.outer(torch.arange(sequence, dtype=torch.float64), ROTARY_BASE**-pairs)
        cos, sin = angles.cos().float(), angles.sin().float()
        self.register_buffer("cos", torch.cat((cos, cos), dim=1).unsqueeze(1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=1).unsqueeze(1), persistent=False)

    def forward(self, x_BTNC: Tensor) -> Tensor:
        """(batch, time, heads, head width), turned by position; pair i is made of the numbers i and i + width/2."""
        cos = self.get_buffer("cos")[: x_BTNC.shape[1]].to(x_BTNC.dtype)
        sin = self.get_buffer("sin")[: x_BTNC.shape[1]].to(x_BTNC.dtype)
        first, second = x_BTNC.chunk(2, dim=-1)
        return torch.addcmul(x_BTNC * cos, torch.cat((second, first), dim=-1), sin)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (initial.linear(width, width) for _ in range(4))

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        B, T, D = x_BTD.shape
        # One product instead of three: on a CPU small products are bound by the calls.
        projections = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        qkv = F.linear(x_BTD, projections).view(B, T, 3 * self.heads, D // self.heads)
        turned, value = torch.split(qkv, [2 * self.heads, self.heads], dim=2)
        query, key = torch.split(rotary(turned).transpose(1, 2), self.heads, dim=1)
        mixed = _causal(query, key, value.transpose(1, 2))
        y_BTD: Tensor = self.output(mixed.transpose(1, 2).reshape(B, T, D))
        return y_BTD


def _causal(query_BNTC: Tensor, key_BNTC: Tensor, value_BNTC: Tensor) -> Tensor:
    """softmax(mask(Q K' / sqrt(C))) V.

    torch's fused kernel, except for training in bf16 on a CPU: there its backward pass takes four times as long as
    these three products (torch 2.13, measured at 128 and 512 tokens); above 1024 tokens memory counts for more.
    """
    B, N, T, C = query_BNTC.shape
    bf16_training = query_BNTC.dtype == torch.bfloat16 and query_BNTC.requires_grad
    if not (bf16_training and query_BNTC.device.type == "cpu" and T <= 1024):
        return F.scaled_dot_product_attention(query_BNTC, key_BNTC, value_BNTC, is_causal=True)
    future = torch.full((T, T), float("-inf"), dtype=query_BNTC.dtype).triu(1)
    query, key, value = (x.reshape(B * N, T, C) for x in (query_BNTC, key_BNTC, value_BNTC))
    scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=C**-0.5)
    return (scores.softmax(dim=-1).to(value.dtype) @ value).view(B, N, T, C)
