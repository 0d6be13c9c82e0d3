"""The transformer: parameters in names, shapes and order as `algorithms.shape.ModelShape` counts them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.method import ModelView
from algorithms.shape import ModelShape
from harness.worker.model import initial
from harness.worker.model.attention import Attention, RmsNorm, Rotary
from harness.worker.model.mixture import Mixture, Routing, imbalance


class Mlp(nn.Module):
    """silu(x U) D, or silu(x G) * (x U) D when gated (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gate = initial.linear(width, hidden) if gated else None
        self.up = initial.linear(width, hidden)
        self.down = initial.linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        up = self.up(x_BTD)
        y_BTD: Tensor = self.down(F.silu(up) if self.gate is None else F.silu(self.gate(x_BTD)) * up)
        return y_BTD


class Layer(nn.Module):
    """x + norm_out(branch(norm(x))) for attention and for the feed-forward part; norm_out only with `norm: peri`."""

    def __init__(self, shape: ModelShape, ffn: nn.Module) -> None:
        super().__init__()
        peri = shape.norm == "peri"
        self.attention_norm = RmsNorm(shape.width)
        self.attention_norm_out = RmsNorm(shape.width) if peri else None
        self.attention = Attention(shape.width, shape.heads, shape.key_value_heads)
        self.ffn_norm = RmsNorm(shape.width)
        self.ffn_norm_out = RmsNorm(shape.width) if peri else None
        self.ffn = ffn

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        attended: Tensor = self.attention(self.attention_norm(x_BTD), rotary)
        x_BTD = x_BTD + (attended if self.attention_norm_out is None else self.attention_norm_out(attended))
        computed: Tensor = self.ffn(self.ffn_norm(x_BTD))
        return x_BTD + (computed if self.ffn_norm_out is None else self.ffn_norm_out(computed))


class Transformer(nn.Module):
    """`balance_weight`: weight of the router's regulariser in `auxiliary_loss`; 0 for none."""

    def __init__(self, shape: ModelShape, seed: int, view: ModelView) -> None:
        super().__init__()
        if view.residents is not None and (shape.kind != "moe" or len(view.residents) != shape.layers):
            raise ValueError(f"residents for {len(view.residents)} layers; allowed: one tuple for each MoE layer")
        self.shape = shape
        self.balance_weight = 0.0
        self._last_loss = torch.tensor(float("nan"))
        self.embedding = initial.embedding(shape.vocabulary, shape.width)
        self.embedding_norm = RmsNorm(shape.width) if shape.norm == "peri" else None
        self.layers = nn.ModuleList(Layer(shape, _ffn(shape, i, seed, view)) for i in range(shape.layers))
        self.norm = RmsNorm(shape.width)
        self.unembedding = None if shape.tied else initial.linear(shape.width, shape.vocabulary)
        self.rotary = Rotary(shape.sequence, shape.width // shape.heads, shape.rotary_base)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """(B, T) int64 -> logits (B, T, V); T at most the shape's `sequence`.

        With targets, the training objective instead: their mean loss plus `auxiliary_loss`. `last_loss` is without it.
        """
        logits_BTV = self._logits(tokens_BT)
        if targets_BT is None:
            return logits_BTV
        loss = mean_loss(logits_BTV, targets_BT)
        self._last_loss = loss.detach()
        return loss + self.auxiliary_loss()

    @property
    def last_loss(self) -> float:
        """Mean cross-entropy of the last forward pass that was given targets, nats per token."""
        return float(self._last_loss)

    def _logits(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        else:  # as large as what branches add, though the same matrix makes the logits (Vaswani et al. 2017, 3.4)
            x_BTD = x_BTD * self.shape.width**0.5
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.rotary)
        unembedding = self.embedding if self.unembedding is None else self.unembedding
        return F.linear(self.norm(x_BTD), unembedding.weight)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy, nats per token, without the auxiliary loss."""
        return mean_loss(self._logits(tokens_BT), targets_BT)

    def auxiliary_loss(self) -> Tensor:
        """`balance_weight` x the sum over layers of `imbalance` in the last training pass; zero when asked again."""
        logits = [found for mixture in self.mixtures() if (found := mixture.take_logits()) is not None]
        if not logits or not self.balance_weight:
            return self.norm.weight.new_zeros(())
        return self.balance_weight * torch.stack([imbalance(found) for found in logits]).sum()

    def mixtures(self) -> list[Mixture]:
        """The MoE parts, in layer order; empty for a dense model."""
        parts = [layer.get_submodule("ffn") for layer in self.layers]
        return [part for part in parts if isinstance(part, Mixture)]

    def set_residents(self, layer: int, experts: tuple[int, ...]) -> tuple[int, ...]:
        """Change in place which experts of `layer` this worker holds; see `Mixture.set_residents`."""
        return self.mixtures()[layer].set_residents(experts)

    def routing(self) -> list[Routing]:
        """What the routers did in the training passes since the last call, by layer."""
        return [mixture.observed() for mixture in self.mixtures()]


def mean_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy, nats per token, in fp32 or better."""
    precise = torch.promote_types(logits_BTV.dtype, torch.float32)
    return F.cross_entropy(logits_BTV.flatten(0, 1).to(precise), targets_BT.flatten())


def build_model(shape: ModelShape, seed: int, view: ModelView = ModelView()) -> Transformer:  # noqa: B008 - frozen
    """A transformer in fp32 on the CPU, the same bits for the same seed; of an MoE only what `view` lets it hold."""
    model = Transformer(shape, seed, view)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not name.endswith(".router"):
                parameter.copy_(initial.normal(tuple(parameter.shape), _std(shape, name), seed, name))
    return model


def _std(shape: ModelShape, name: str) -> float:
    if name.startswith(("embedding.", "unembedding.")):
        return float(0.5 * shape.width**-0.5)  # measured: learns faster than 1 and 0.25
    if name.endswith((".output.weight", ".down.weight")):
        return initial.branch_std(shape.layers, shape.hidden if name.endswith(".down.weight") else shape.width)
    return float(shape.width**-0.5)


def _ffn(shape: ModelShape, layer: int, seed: int, view: ModelView) -> nn.Module:
    if shape.kind == "dense":
        return Mlp(shape.width, shape.hidden, shape.gated)
    residents = range(shape.experts) if view.residents is None else view.residents[layer]
    return Mixture(shape, layer, seed, residents, view.routing)
