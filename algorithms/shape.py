"""The shape of a decoder-only transformer: its parameters, counted and named, and its FLOPs. No tensors.

Dense layers have an MLP of two matrices (three when gated); mixture-of-experts layers have `experts` MLPs of
`expert_width` and a router (FoMoE, arXiv 2606.19025, appendix B). Names are those of the torch modules. Some shapes of
published models are counted and projected, but have no torch module here: `ModelShape.only_projected`.
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
    OTHER = "other"  # of somebody's own module: neither a matrix of a layer nor any of these


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


class LatentAttention(Document):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): queries from `query_rank` numbers, keys
    and values from `key_value_rank`; a head's query and key have `plain` numbers without a position and `rotary` with
    one, its value has `value`."""

    query_rank: int = Field(ge=1, le=10_000_000)
    key_value_rank: int = Field(ge=1, le=10_000_000)
    plain: int = Field(ge=1, le=1_000_000)
    rotary: int = Field(ge=1, le=1_000_000)
    value: int = Field(ge=1, le=1_000_000)


Named = tuple[str, tuple[int, ...], Role]  # of a parameter: its name (within its layer), shape and role


class ModelShape(Document):
    """Sizes as a suite or a preset gives them. `sequence` is the context length in tokens.

    key_value_heads: groups of heads share a key and a value (Ainslie et al. 2023, arXiv 2305.13245; 1: Shazeer 2019).
    head_width: default width / heads.  shared_experts: that every token meets, besides its top_k.  dense_layers: the
    first so many layers of an MoE have a dense MLP of `ffn_width`, gated like the experts.
    """

    name: str = "custom"
    kind: Literal["dense", "moe", "module"] = "dense"
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
    key_value_heads: int | None = Field(default=None, ge=1, le=1_000_000)
    rotary_base: float = Field(default=10_000.0, gt=1, le=1e12)  # of the rotary embeddings' wavelengths
    head_width: int | None = Field(default=None, ge=1, le=1_000_000)
    latent: LatentAttention | None = None
    gated_experts: bool = False
    shared_experts: int = Field(default=0, ge=0, le=1_000)
    dense_layers: int = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _attends(self) -> Self:
        if self.key_value_heads is not None and self.heads % self.key_value_heads:
            raise ValueError("heads that are a multiple of key_value_heads")
        if self.latent is not None and (self.key_value_heads or self.head_width):
            raise ValueError("latent, or key_value_heads and head_width")
        if self.kind == "dense" and (self.gated_experts or self.shared_experts or self.dense_layers):
            raise ValueError("gated_experts, shared_experts and dense_layers only with kind: moe")
        if self.dense_layers >= self.layers and self.dense_layers:
            raise ValueError("fewer dense_layers than layers")
        if (self.ffn_width is not None) != bool(self.dense_layers) and self.kind == "moe":
            raise ValueError("ffn_width with dense_layers, in a model of kind moe")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own_width = self.head_width is not None or self.latent is not None
        if not own_width and (self.width % self.heads or (self.width // self.heads) % 2):
            raise ValueError("a width that is an even multiple of heads (rotary embeddings turn pairs)")
        if self.kind == "module":
            raise ValueError("dense or moe; a module of your own is given as module: FILE:FUNCTION, without a kind")
        if self.kind == "moe" and not 1 <= self.top_k <= self.experts:
            raise ValueError("for kind moe: experts >= top_k >= 1")
        if self.kind == "dense" and (self.experts or self.top_k or self.expert_width):
            raise ValueError("experts, top_k and expert_width only with kind: moe")
        if self.kind == "moe" and self.gated:
            raise ValueError("gated only with kind: dense (gated_experts for an MoE)")
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

    @property
    def only_projected(self) -> str:
        """The first field of a shape that no torch module here has; empty if it can be trained."""
        fields = ("head_width", "latent", "gated_experts", "shared_experts", "dense_layers")
        return next((name for name in fields if getattr(self, name)), "")

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.kind == "moe" else 0

    @property
    def attention_widths(self) -> tuple[int, int, int]:
        """Numbers of a token's queries (and, spread over all heads, keys), of its own keys, and of its values."""
        if (latent := self.latent) is not None:
            each = latent.plain + latent.rotary
            return self.heads * each, self.heads * each, self.heads * latent.value
        each, groups = self.head_width or self.width // self.heads, self.key_value_heads or self.heads
        return self.heads * each, groups * each, groups * each

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter in the order of the torch module."""
        before, after = self._outside
        kinds = {False: self._layer(experts=False), True: self._layer(experts=True)}
        inside = (
            Parameter(f"layers.{i}.{name}", shape, role, i)
            for i in range(self.layers)
            for name, shape, role in kinds[self._has_experts(i)]
        )
        return (*(Parameter(*each) for each in before), *inside, *(Parameter(*each) for each in after))

    def _has_experts(self, layer: int) -> bool:
        return self.kind == "moe" and layer >= self.dense_layers

    @property
    def _outside(self) -> tuple[list[Named], list[Named]]:
        """Before and after the layers."""
        matrix, norm = (self.vocabulary, self.width), (self.width,)
        before: list[Named] = [("embedding.weight", matrix, Role.EMBEDDING)]
        before += [("embedding_norm.weight", norm, Role.NORM)] if self.norm == "peri" else []
        after: list[Named] = [("norm.weight", norm, Role.NORM)]
        after += [] if self.tied else [("unembedding.weight", matrix, Role.EMBEDDING)]
        return before, after

    def _layer(self, experts: bool) -> list[Named]:
        d, ends = self.width, ("", "_out") if self.norm == "peri" else ("",)
        if experts and self.kind == "dense":
            return []
        found: list[Named] = [(f"attention_norm{end}.weight", (d,), Role.NORM) for end in ends]
        found += [(f"attention.{name}.weight", shape, Role.ATTENTION) for name, shape in self._attention()]
        found += [(f"ffn_norm{end}.weight", (d,), Role.NORM) for end in ends]
        if not experts:
            return found + self._mlp("ffn", self.hidden, self.gated or self.gated_experts)
        n, h = self.experts, self.expert_hidden
        found += [("ffn.router", (n, d), Role.ROUTER)]
        found += [("ffn.gate", (n, d, h), Role.EXPERT)] if self.gated_experts else []
        found += [("ffn.up", (n, d, h), Role.EXPERT), ("ffn.down", (n, h, d), Role.EXPERT)]
        return found + (
            self._mlp("ffn.shared", self.shared_experts * h, self.gated_experts) if self.shared_experts else []
        )

    def _mlp(self, name: str, hidden: int, gated: bool) -> list[Named]:
        parts = {"gate": (hidden, self.width), "up": (hidden, self.width), "down": (self.width, hidden)}
        return [(f"{name}.{part}.weight", shape, Role.FFN) for part, shape in parts.items() if gated or part != "gate"]

    def _attention(self) -> list[tuple[str, tuple[int, ...]]]:
        d, (query, key, value) = self.width, self.attention_widths
        if (latent := self.latent) is None:
            return [("query", (query, d)), ("key", (key, d)), ("value", (value, d)), ("output", (d, query))]
        rank, up = latent.key_value_rank, self.heads * (latent.plain + latent.value)
        return [
            ("query_down", (latent.query_rank, d)),
            ("query_norm", (latent.query_rank,)),
            ("query_up", (query, latent.query_rank)),
            ("key_value_down", (rank + latent.rotary, d)),
            ("key_value_norm", (rank,)),
            ("key_value_up", (up, rank)),
            ("output", (d, value)),
        ]

    def count(self, *roles: Role) -> int:
        """Numbers in the parameters of these roles; of all parameters when none is given."""
        return sum(count for role, count in self.count_by_role.items() if not roles or role in roles)

    @cached_property
    def count_by_role(self) -> dict[Role, int]:
        found = dict.fromkeys(Role, 0)
        before, after = self._outside
        parts = ((1, before), (1, after), (self.layers - self.expert_layers, self._layer(experts=False)))
        for times, part in (*parts, (self.expert_layers, self._layer(experts=True))):
            for _, shape, role in part:
                found[role] += times * prod(shape)
        return found

    def flops_per_token(self, expert_share: float = 1.0, router_share: float = 1.0) -> float:
        """Training FLOPs of one token: 6 per matrix entry that it meets, and 12 L d s for attention scores.

        expert_share: executed share of the top-k expert computations.   router_share: resident share of router rows.
        Source: FoMoE Eq. 1-3 with the unembedding counted; for dense models the usual 6 N + 12 L d s.
        """
        everywhere: float = 6 * sum(prod(shape) for _, shape in self._attention() if len(shape) > 1)
        everywhere += self.score_flops_per_token
        of_layer: float = 6 * (3 if self.gated or self.gated_experts else 2) * self.width * self.hidden
        dense = (self.layers - self.expert_layers) * (everywhere + of_layer)
        if self.kind == "dense":
            return dense + 6 * self.vocabulary * self.width
        one = (3 if self.gated_experts else 2) * self.width * self.expert_hidden
        of_layer = 6 * self.top_k * one * expert_share + 6 * self.shared_experts * one
        of_layer += 6 * self.width * self.experts * router_share
        return dense + self.expert_layers * (everywhere + of_layer) + 6 * self.vocabulary * self.width

    @property
    def score_flops_per_token(self) -> float:
        """Training FLOPs of one token's attention scores in one layer: 6 s per number of its queries, and of what its
        heads put out; 12 d s where both are as wide as the model."""
        query, _, value = self.attention_widths
        put_out = value if self.latent is not None else query
        return 6.0 * self.sequence * (query + put_out)
