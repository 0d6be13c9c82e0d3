"""Causal self-attention with rotary position embeddings (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from harness.worker.model import initial


class Rotary(nn.Module):
    """The angles of positions 0 to `sequence` - 1 for heads of `head_width` numbers, which are turned in pairs."""

    def __init__(self, sequence: int, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        pairs = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
        angles = torch.outer(torch.arange(sequence, dtype=torch.float64), base**-pairs)
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
    """Groups of queries share one of `key_value_heads` keys and values (grouped-query attention, arXiv 2305.13245)."""

    def __init__(self, width: int, heads: int, key_value_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.key_value_heads = heads, key_value_heads or heads
        shared = width // heads * self.key_value_heads
        self.query, self.key = initial.linear(width, width), initial.linear(width, shared)
        self.value, self.output = initial.linear(width, shared), initial.linear(width, width)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        B, T, D = x_BTD.shape
        # One product instead of three: on a CPU small products are bound by the calls.
        projections = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        qkv = F.linear(x_BTD, projections).view(B, T, self.heads + 2 * self.key_value_heads, D // self.heads)
        turned, value = torch.split(qkv, [self.heads + self.key_value_heads, self.key_value_heads], dim=2)
        query, key = torch.split(rotary(turned).transpose(1, 2), [self.heads, self.key_value_heads], dim=1)
        value = value.transpose(1, 2)
        if self.key_value_heads != self.heads:
            key, value = (x.repeat_interleave(self.heads // self.key_value_heads, dim=1) for x in (key, value))
        mixed = _causal(query, key, value)
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


EPSILON = 1e-5


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis, in the weight's precision whatever x has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return _rms_norm(x_BTD.to(self.weight.dtype), self.weight)


class _RmsNorm(torch.autograd.Function):
    """torch's own has no fused CPU kernel; writing the gradient out takes a third of the time of deriving it.

    With n = x r and r = (mean(x^2) + epsilon)^(-1/2):   dx = r (g w - n mean(g w n)),   dw = sum(g n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        y: Tensor = (x * scale).mul_(weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, scale, weight = ctx.saved_tensors
        normalised = x * scale
        product = g * normalised
        mean = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        dx = normalised.mul_(mean).neg_().addcmul_(g, weight).mul_(scale)
        return dx, product.flatten(0, -2).sum(0)


_rms_norm: Callable[[Tensor, Tensor], Tensor] = _RmsNorm.apply
