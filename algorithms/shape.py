"""The shape of a decoder-only transformer: its parameters, counted and named, and its FLOPs. No tensors.

Dense layers have an MLP of two matrices (three when gated); mixture-of-experts layers have `experts` MLPs of
`expert_width` and a router (FoMoE, arXiv 2606.19025, appendix B). Names are those of the torch modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Literal, Self

from pydantic import Field, model_validator

from netsim.documents import Document


class Role(StrEnum):
    EMBEDDING = "embedding"
    ATTENTION = "attention"
    FFN = "ffn"
    NORM = "norm"
    ROUTER = "router"
    EXPERT = "expert"


@dataclass(frozen=True)
class Parameter:
    """One named tensor. Expert tensors are stacked: their first axis is the expert."""

    name: str
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)


class ModelShape(Document):
    """Sizes as a suite or a preset gives them. `sequence` is the context length in tokens."""

    name: str = "custom"
    kind: Literal["dense", "moe"] = "dense"
    layers: int = Field(ge=1)  # as many as a search over sizes tries; what a file may have: harness.spec.presets
    width: int = Field(ge=8, le=10_000_000)
    heads: int = Field(ge=1, le=1_000_000)
    vocabulary: int = Field(default=256, ge=2, le=100_000_000)
    sequence: int = Field(default=128, ge=2, le=100_000_000)
    ffn_width: int | None = Field(default=None, ge=1, le=100_000_000)  # dense; default 4 x width
    gated: bool = False  # dense MLP with a third, gating matrix
    experts: int = Field(default=0, ge=0, le=100_000)
    top_k: int = Field(default=0, ge=0, le=100_000)
    expert_width: int | None = Field(
        default=None, ge=1, le=100_000_000
    )  # default 4 x width / experts: iso-parameter with a dense MLP
    tied: bool = True
    norm: Literal["pre", "peri"] = "pre"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError("a width that is an even multiple of heads (rotary embeddings turn pairs)")
        if self.kind == "moe" and not 1 <= self.top_k <= self.experts:
            raise ValueError("for kind moe: experts >= top_k >= 1")
        if self.kind == "dense" and (self.experts or self.top_k or self.expert_width):
            raise ValueError("experts, top_k and expert_width only with kind: moe")
        if self.kind == "moe" and (self.ffn_width or self.gated):
            raise ValueError("ffn_width and gated only with kind: dense")
        return self

    @property
    def hidden(self) -> int:
        """Inner width of a dense MLP."""
        return self.ffn_width or 4 * self.width

    @property
    def expert_hidden(self) -> int:
        """Inner width of one expert."""
        assert self.kind == "moe"
        return self.expert_width or max(1, 4 * self.width // self.experts)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter in the order of the torch module."""
        d, found = self.width, [Parameter("embedding.weight", (self.vocabulary, self.width), Role.EMBEDDING)]
        norms = ("", "_out") if self.norm == "peri" else ("",)
        if self.norm == "peri":
            found.append(Parameter("embedding_norm.weight", (d,), Role.NORM))
        for i in range(self.layers):
            at = f"layers.{i}."
            found += [Parameter(f"{at}attention_norm{end}.weight", (d,), Role.NORM, i) for end in norms]
            found += [
                Parameter(f"{at}attention.{part}.weight", (d, d), Role.ATTENTION, i)
                for part in ("query", "key", "value", "output")
            ]
            found += [Parameter(f"{at}ffn_norm{end}.weight", (d,), Role.NORM, i) for end in norms]
            if self.kind == "dense":
                h = self.hidden
                found += [Parameter(f"{at}ffn.gate.weight", (h, d), Role.FFN, i)] if self.gated else []
                found += [Parameter(f"{at}ffn.up.weight", (h, d), Role.FFN, i)]
                found += [Parameter(f"{at}ffn.down.weight", (d, h), Role.FFN, i)]
            else:
                n, h = self.experts, self.expert_hidden
                found += [Parameter(f"{at}ffn.router", (n, d), Role.ROUTER, i)]
                found += [Parameter(f"{at}ffn.up", (n, d, h), Role.EXPERT, i)]
                found += [Parameter(f"{at}ffn.down", (n, h, d), Role.EXPERT, i)]
        found.append(Parameter("norm.weight", (d,), Role.NORM))
        if not self.tied:
            found.append(Parameter("unembedding.weight", (self.vocabulary, d), Role.EMBEDDING))
        return tuple(found)

    def count(self, *roles: Role) -> int:
        """Numbers in the parameters of these roles; of all parameters when none is given."""
        return sum(p.elements for p in self.parameters if not roles or p.role in roles)

    def flops_per_token(self, expert_share: float = 1.0, router_share: float = 1.0) -> float:
        """Training FLOPs of one token: 6 per matrix entry that it meets, and 12 L d s for attention scores.

        expert_share: executed share of the top-k expert computations.   router_share: resident share of router rows.
        Source: FoMoE Eq. 1-3 with the unembedding counted; for dense models the usual 6 N + 12 L d s.
        """
        per_layer: float = 6 * 4 * self.width**2 + 12 * self.width * self.sequence
        if self.kind == "dense":
            per_layer += 6 * (3 if self.gated else 2) * self.width * self.hidden
        else:
            per_layer += 6 * self.top_k * 2 * self.width * self.expert_hidden * expert_share
            per_layer += 6 * self.width * self.experts * router_share
        return self.layers * per_layer + 6 * self.vocabulary * self.width
