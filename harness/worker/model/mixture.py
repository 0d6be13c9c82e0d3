"""A mixture of experts: sigma-MoE as FoMoE uses it (arXiv 2606.19025, section 3.3 and appendix B).

    p_e(x) = sigmoid(x . w_e)                       no competition between experts
    y      = sum over the top-k of p_e(x) E_e(x)    raw gates, not renormalised
    E_e(x) = silu(x U_e) D_e

A worker may hold only some experts. `masked`: the router has only their rows, so that tokens can go nowhere else.
`skip`: the router is whole and picks among all experts; choices of absent experts ("ghosts") are dropped before the
experts compute, and the residual stream carries the token on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.shape import ModelShape
from harness.worker.model import initial

ROWS = 32


@dataclass(frozen=True)
class Routing:
    """What one layer's router did since it was last asked.

    load[e]: share of all choices that fell on expert e, by expert id.   ghost_share: of choices that were dropped.
    entropy: of the load, as a share of its maximum; 1 is perfectly even, 0 a single expert.
    """

    layer: int
    load: tuple[float, ...]
    entropy: float
    ghost_share: float


class Mixture(nn.Module):
    """The feed-forward part of one layer. router (rows, D), up (R, D, H), down (R, H, D) for R resident experts."""

    def __init__(
        self,
        shape: ModelShape,
        layer: int,
        seed: int,
        residents: Sequence[int],
        routing: Literal["full", "masked", "skip"] = "full",
    ) -> None:
        super().__init__()
        self.layer, self.seed, self.routing = layer, seed, routing
        self.experts, self.top_k = shape.experts, shape.top_k
        width, hidden = shape.width, shape.expert_hidden
        self._stds = {"up": width**-0.5, "down": initial.branch_std(shape.layers, hidden), "router": width**-0.5}
        self.router = nn.Parameter(torch.empty(0, width))
        self.up = nn.Parameter(torch.empty(0, width, hidden))
        self.down = nn.Parameter(torch.empty(0, hidden, width))
        if routing != "masked":
            self.router.data = torch.stack([self._initial("router", e) for e in range(self.experts)])
        self.residents: tuple[int, ...] = ()
        self._logits: Tensor | None = None
        self._counts = [0] * (self.experts + 1)  # choices by expert; the last entry counts dropped ones
        self.register_buffer("_place", torch.zeros(self.experts, dtype=torch.int64), persistent=False)
        self.set_residents(residents)

    def set_residents(self, residents: Sequence[int]) -> tuple[int, ...]:
        """Hold exactly these experts (ids, ascending), keeping the values of those that stay; returns the new ones.

        Parameters stay the same objects; rows are in the order of the ids. New rows hold the experts' initial values,
        for the caller to overwrite. Gradients are dropped.
        """
        found = tuple(residents)
        if not found or list(found) != sorted(set(found)) or found[0] < 0 or found[-1] >= self.experts:
            raise ValueError(f"layer {self.layer}: residents {found}; allowed: ascending ids below {self.experts}")
        if self.routing == "full" and len(found) != self.experts:
            raise ValueError(f"layer {self.layer}: {len(found)} residents with full routing; allowed: all experts")
        parts = [("up", self.up), ("down", self.down)]
        if self.routing == "masked":
            parts.append(("router", self.router))
        with torch.no_grad():
            for name, parameter in parts:
                held = dict(zip(self.residents, parameter.detach().unbind(0), strict=True))
                rows = [held[e] if e in held else self._initial(name, e).to(parameter) for e in found]
                parameter.data = torch.stack(rows)
                parameter.grad = None
            self.get_buffer("_place").fill_(len(found))
            self.get_buffer("_place")[list(found)] = torch.arange(len(found), device=self.up.device)
        incoming = tuple(e for e in found if e not in self.residents)
        self.residents = found
        return incoming

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_SD = x_BTD.reshape(-1, x_BTD.shape[-1])
        with torch.autocast(x_SD.device.type, enabled=False):  # cheap, and close scores should not tie
            logits_SR = x_SD.to(self.router.dtype) @ self.router.T
            top_SK, chosen_SK = logits_SR.topk(min(self.top_k, logits_SR.shape[1]), dim=-1)
            gates_SK = top_SK.sigmoid()
        self._logits = logits_SR if self.training and torch.is_grad_enabled() else None
        return self._dispatch(x_SD, gates_SK, chosen_SK).view_as(x_BTD)

    def take_logits(self) -> Tensor | None:
        """The router's logits (tokens, rows) in the last training pass, with their gradient; once per pass."""
        logits_SR, self._logits = self._logits, None
        return logits_SR

    def _dispatch(self, x_SD: Tensor, gates_SK: Tensor, chosen_SK: Tensor) -> Tensor:
        """The choices grouped by expert, those of absent experts left out; a product per group; the weighted sum."""
        choices = chosen_SK.reshape(-1)
        if self.routing == "skip":
            choices = self.get_buffer("_place")[choices]
        place, order = choices.sort(stable=True)
        counts = torch.bincount(place, minlength=len(self.residents) + 1).tolist()
        self._note(counts)
        dropped = counts.pop()
        sizes = _sizes(counts)
        row = _rows(counts, sizes)
        # Rows that only fill up a group stand for a choice that does not exist: of the last token, with gate 0.
        choice = torch.full((sum(sizes),), len(choices)).index_copy_(0, row, order[: len(order) - dropped])
        token = (choice // chosen_SK.shape[1]).clamp_(max=len(x_SD) - 1)
        gates = torch.cat((gates_SK.reshape(-1), gates_SK.new_zeros(1))).index_select(0, choice)
        hidden = F.silu(_product(x_SD.index_select(0, token), self.up, sizes))
        y = _product(hidden * gates.unsqueeze(1), self.down, sizes)  # gates before D: hidden is the narrower side
        return torch.zeros_like(x_SD).index_add(0, token, y.to(x_SD.dtype))

    def _note(self, counts: list[int]) -> None:
        if self.training:
            for expert, count in zip((*self.residents, self.experts), counts, strict=True):
                self._counts[expert] += count

    def observed(self) -> Routing:
        """The choices of all training passes since the last call."""
        counts, self._counts = self._counts, [0] * len(self._counts)
        held, total = sum(counts[:-1]), max(1, sum(counts))
        shares = [count / held for count in counts[:-1] if count]
        entropy = -sum(share * log(share) for share in shares) / log(max(2, len(self.residents)))
        return Routing(self.layer, tuple(count / total for count in counts[:-1]), entropy, counts[-1] / total)

    def _initial(self, name: str, expert: int) -> Tensor:
        """The initial values of one expert's matrix, or of its router row."""
        row_shape = getattr(self, name).shape[1:]
        return initial.normal(row_shape, self._stds[name], self.seed, f"layers.{self.layer}.ffn.{name}[{expert}]")


def imbalance(logits_SR: Tensor) -> Tensor:
    """sum_e p_e ln p_e for the mean p of the tokens' softmax: minus its entropy, lowest when it is even.

    sigma-MoE's regulariser (Csordas et al. 2023, arXiv 2310.10837).
    """
    mean_R = logits_SR.softmax(dim=-1).mean(dim=0)
    return (mean_R * mean_R.clamp_min(1e-20).log()).sum()


def _sizes(counts: Sequence[int]) -> list[int]:
    """Rows of each expert's group: all alike if that at most doubles them, for one batched product instead of many.

    Multiples of ROWS: for every size it has not met, oneDNN prepares a product, and that takes longer than the product.
    """
    alike = -(-max(counts) // ROWS) * ROWS
    if alike * len(counts) <= 2 * max(sum(counts), 1):
        return [alike] * len(counts)
    return [-(-count // ROWS) * ROWS for count in counts]


def _rows(counts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The row of every choice, in the order of the experts."""
    shift = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes) - torch.tensor(counts).cumsum(0) + torch.tensor(counts)
    return torch.arange(sum(counts)) + shift.repeat_interleave(torch.tensor(counts))


def _product(x: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """(rows, in) x (experts, in, out) -> (rows, out), expert e for its sizes[e] rows."""
    if len(set(sizes)) == 1:
        return torch.bmm(x.view(len(sizes), sizes[0], x.shape[1]), weights).flatten(0, 1)
    groups = torch.split(x, list(sizes))
    return torch.cat([group @ matrix for group, matrix in zip(groups, weights.unbind(0), strict=True)])
