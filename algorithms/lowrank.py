"""Adam in a subspace: which matrices are low-rank, their bases, and the moments that live in them.

A matrix is turned so that its shorter side p comes first: W (p, q), basis Q (p, r) with orthonormal columns, projected
gradient Q^T W (r, q), moments u and v (r, q). Matrices of one size are one batch (n, p, q), whatever parameter they
belong to; a stacked expert tensor is a batch of matrices. Everything else is ordinary Adam on one flat vector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Protocol

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from algorithms.inner import flatten, tensor_bytes
from algorithms.shape import ModelShape
from algorithms.worker import WorkerSetup
from netsim.errors import InputError


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    return pattern


NamePattern = Annotated[str, AfterValidator(_compiles)]
# Our own names, and those of Hugging Face's models and of nanoGPT.
LOW_RANK = (
    r"\.(attention\.(query|key|value|output)|ffn\.(gate|up|down)|(q|k|v|o|gate|up|down)_proj|c_attn|c_fc|c_proj)"
    r"(\.weight)?$"
)


@dataclass(frozen=True)
class LowRankSizes:
    """Numbers in one moment of the low-rank matrices (S), in their bases (B), in themselves (P), and in the rest."""

    moment: int
    bases: int
    matrices: int
    full: int

    @staticmethod
    def of(shape: ModelShape, pattern: str, rank: int | None) -> LowRankSizes:
        moment = bases = matrices = 0
        chosen = [p for p in shape.parameters if is_low_rank(p.name, len(p.shape), pattern)]
        for parameter in chosen:
            short, long = sorted(parameter.shape[-2:])
            batch, r = parameter.elements // (short * long), effective_rank(shape, rank, short)
            moment, bases, matrices = (
                moment + batch * r * long,
                bases + batch * r * short,
                matrices + parameter.elements,
            )
        if not chosen:
            raise InputError("low-rank method", "low_rank", pattern, f"a pattern that matches some of {shape.name}")
        return LowRankSizes(moment, bases, matrices, shape.count() - matrices)


@lru_cache(maxsize=1 << 16)
def is_low_rank(name: str, dimensions: int, pattern: str) -> bool:
    """Matrices, and stacks of them, whose names match; a convolution's four axes are no stack of matrices."""
    return dimensions in (2, 3) and re.search(pattern, name) is not None


def effective_rank(shape: ModelShape, rank: int | None, short: int) -> int:
    """`rank`, by default an eighth of the model's width, and at most the matrix's shorter side."""
    return min(rank or max(1, shape.width // 8), short)


class Batch:
    """Low-rank matrices of one size: bases `q` (n, p, r), moments `u`, `v` (n, r, q), error feedback `e` (n, p, q)."""

    def __init__(self, parameters: list[nn.Parameter], rank: int, feedback: bool) -> None:
        self.parameters = parameters
        like = self.stack(parameters)
        n, short, long = like.shape
        self.q = torch.eye(short, rank, dtype=like.dtype).expand(n, -1, -1).clone()  # until there is something better
        self.u = like.new_zeros(n, rank, long)
        self.v = like.new_zeros(n, rank, long)
        self.e = like.new_zeros(n, short, long) if feedback else None

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors in the shapes of the parameters -> (n, p, q), a copy."""
        return torch.cat([_turned(t.detach()).reshape(-1, *sorted(t.shape[-2:])) for t in tensors])

    def unstack(self, batch: Tensor) -> list[Tensor]:
        """(n, p, q) -> views in the shapes of the parameters."""
        sizes = [p.numel() // (p.shape[-1] * p.shape[-2]) for p in self.parameters]
        parts = zip(torch.split(batch, sizes), self.parameters, strict=True)
        return [_turned(part, like=p).reshape(p.shape) for part, p in parts]


class LowRankOptions(Protocol):
    """What the options of methods with low-rank matrices have in common."""

    @property
    def low_rank(self) -> str: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def error_feedback(self) -> bool: ...


class LowRankAdam:
    """(Quasi-hyperbolic) Adam whose moments of chosen matrices live in a subspace. `omega`: the momentum's weight.

    One step is: `signals` -> (`rebase`) -> `project` -> `advance`; a method may communicate between any two of them.
    """

    def __init__(self, setup: WorkerSetup, options: LowRankOptions) -> None:
        self.eps, self.weight_decay, self.steps = setup.optimizer.eps, setup.optimizer.weight_decay, 0
        self.parameters = list(setup.model.parameters())
        by_size: dict[tuple[int, int], list[nn.Parameter]] = {}
        self.full: list[nn.Parameter] = []
        for name, parameter in setup.model.named_parameters():
            if is_low_rank(name, parameter.dim(), options.low_rank):
                short, long = sorted(parameter.shape[-2:])
                by_size.setdefault((short, long), []).append(parameter)
            else:
                self.full.append(parameter)
        self.batches = [
            Batch(found, effective_rank(setup.shape, options.rank, short), options.error_feedback)
            for (short, _), found in by_size.items()
        ]
        self.u = torch.zeros_like(flatten(self.full))
        self.v = torch.zeros_like(self.u)
        self.overlap = 1.0  # of the last two bases: mean of |Q_new^T Q_old|^2 / r, 1 for the same subspace

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """G of every batch, (n, p, q) each."""
        return [batch.stack([_gradient(p) for p in batch.parameters]) for batch in self.batches]

    @torch.no_grad()
    def signals(self, gradients: list[Tensor]) -> list[Tensor]:
        """G + E of every batch; with error feedback in the storage of E."""
        return [g if b.e is None else b.e.add_(g) for b, g in zip(self.batches, gradients, strict=True)]

    @torch.no_grad()
    def project(self, signals: list[Tensor]) -> list[Tensor]:
        """Q^T (G + E), (n, r, q) each; E keeps what the projection loses."""
        projected = [b.q.mT @ signal for b, signal in zip(self.batches, signals, strict=True)]
        for batch, g in zip(self.batches, projected, strict=True):
            if batch.e is not None:
                batch.e.baddbmm_(batch.q, g, alpha=-1)
        return projected

    @torch.no_grad()
    def rebase(self, sources: list[Tensor], betas: tuple[float, float], rotate: bool = True) -> None:
        """Bases of the leading left singular vectors of `sources` (n, p, q); moments turned into the new bases.

        With T = Q_new^T Q_old and bias-corrected u, v: u = T u, v = |(T.T) max(v - u^2, 0) + (T u)^2| (LDAdam, Robert
        et al. 2024). A source that is zero or not finite keeps its basis.
        """
        self.set_bases(self.bases_of(sources), betas, rotate)

    @torch.no_grad()
    def bases_of(self, sources: list[Tensor]) -> list[Tensor]:
        return [basis(s, b.q) for s, b in zip(sources, self.batches, strict=True)]

    @torch.no_grad()
    def set_bases(self, bases: list[Tensor], betas: tuple[float, float], rotate: bool = True) -> None:
        """Change to these bases (n, p, r), and turn the moments; see `rebase`."""
        first, second = (1 - beta**self.steps for beta in betas)
        shares = []
        for batch, new in zip(self.batches, bases, strict=True):
            turn = new.mT @ batch.q
            shares.append(turn.square().sum(dim=(1, 2)) / turn.shape[-1])
            if rotate and self.steps:
                u, v = batch.u / first, batch.v / second
                turned = turn @ u
                spread = turn.square() @ (v - u.square()).clamp_min(0)
                batch.u.copy_(turned.mul(first))
                batch.v.copy_((spread + turned.square()).abs().mul(second))
            batch.q.copy_(new)
        self.overlap = float(torch.cat(shares).mean())

    @torch.no_grad()
    def advance(
        self,
        projected: list[Tensor],
        gradients: list[Tensor] | None,
        full: Tensor,
        lr: float,
        betas: tuple[float, float],
        omega: float,
    ) -> None:
        """Update moments and parameters. `full` (N_f,): gradients of the full-rank parameters, used up.

        With `gradients` (n, p, q) the quasi-hyperbolic term leaves the subspace: (1-w) G / mean(d) + w Q (u/d), where
        mean is over the matrix's moment; without, it stays inside: Q ((1-w) g + w u) / d.   d = sqrt(v) + eps.
        """
        self.steps += 1
        if self.weight_decay:
            torch._foreach_mul_([p for p in self.parameters if p.dim() > 1], 1 - lr * self.weight_decay)
        for index, (batch, g) in enumerate(zip(self.batches, projected, strict=True)):
            direction, scale = self._moments(batch.u, batch.v, g, betas)
            if gradients is None:
                direction.mul_(omega).add_(g, alpha=1 - omega).div_(scale)
                update = batch.q @ direction
            else:
                share = (1 - omega) / scale.mean(dim=(1, 2), keepdim=True)
                update = torch.baddbmm(gradients[index] * share, batch.q, direction.div_(scale), alpha=omega)
            torch._foreach_add_(list(batch.parameters), batch.unstack(update), alpha=-lr)
        direction, scale = self._moments(self.u, self.v, full, betas)
        direction.mul_(omega).add_(full, alpha=1 - omega).div_(scale)
        parts = torch.split(direction, [p.numel() for p in self.full])
        torch._foreach_add_(list(self.full), [d.view_as(p) for d, p in zip(parts, self.full, strict=True)], alpha=-lr)

    def _moments(self, u: Tensor, v: Tensor, g: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """Bias-corrected first moment, and sqrt of the second plus eps; the moments are updated in place."""
        b1, b2 = betas
        u.lerp_(g, 1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        scale = v.sqrt().div_((1 - b2**self.steps) ** 0.5).add_(self.eps)
        return u / (1 - b1**self.steps), scale

    def moment(self, which: str) -> list[Tensor]:
        """All `u` or all `v`: those of the batches, then the flat one of the full-rank parameters."""
        return [*(getattr(batch, which) for batch in self.batches), getattr(self, which)]

    def forget_moments(self) -> None:
        for tensor in (*self.moment("u"), *self.moment("v")):
            tensor.zero_()

    def state(self) -> dict[str, Tensor]:
        found = {"lowrank.steps": torch.tensor(self.steps), "lowrank.u": self.u, "lowrank.v": self.v}
        for i, batch in enumerate(self.batches):
            found |= {f"lowrank.{i}.q": batch.q, f"lowrank.{i}.u": batch.u, f"lowrank.{i}.v": batch.v}
            found |= {} if batch.e is None else {f"lowrank.{i}.e": batch.e}
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["lowrank.steps"])
        for name, tensor in self.state().items():
            if name != "lowrank.steps":
                tensor.copy_(state[name])

    def memory(self) -> dict[str, int]:
        feedback = [batch.e for batch in self.batches if batch.e is not None]
        found = {
            "inner_moments": tensor_bytes([*self.moment("u"), *self.moment("v")]),
            "projections": tensor_bytes(batch.q for batch in self.batches),
        }
        return {**found, "error_feedback": tensor_bytes(feedback)} if feedback else found


def basis(sources: Tensor, otherwise: Tensor) -> Tensor:
    """Leading left singular vectors (n, p, r) of (n, p, q), by an exact SVD; `otherwise` gives r and what to keep."""
    usable = sources.isfinite().all(dim=(1, 2)) & (sources != 0).any(dim=(1, 2))
    found = otherwise.clone()
    if bool(usable.any()):
        left, _, _ = torch.linalg.svd(sources[usable], full_matrices=False)
        found[usable] = left[:, :, : otherwise.shape[-1]]
    return found


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _turned(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Transposed when the matrix (or `like`) is taller than wide."""
    rows, columns = (tensor if like is None else like).shape[-2:]
    return tensor.mT if rows > columns else tensor
