"""Inner optimizers that torch lacks, and the registry of all. In the trainer process.

    adamw  torch.optim.AdamW                                                    Loshchilov and Hutter 2019
    sgd    torch.optim.SGD without momentum, for exactness tests
    lion   x -= lr (sign(b1 m + (1-b1) g) + wd x);  m = b2 m + (1-b2) g         Chen et al., arXiv 2302.06675
    adopt  v_0 = g_0^2;  m = b1 m + (1-b1) clip(g / max(sqrt(v), eps), t^1/4);  Taniguchi et al., arXiv 2411.02853,
           x -= lr m;    v = b2 v + (1-b2) g^2                                  algorithm 2
    muon   m = mu m + g;  O = NewtonSchulz5(g + mu m);                          Jordan et al. 2024; the factor is that
           x -= lr (0.2 sqrt(max(p, q)) O + wd x)                               of Liu et al., arXiv 2502.16982

Muon takes the matrices of attention, MLP and experts (a stack of matrices one by one); all else is AdamW's. Its factor
makes an update as large as AdamW's, so that one learning rate serves both. Published betas: lion (0.9, 0.99), adopt
(0.9, 0.9999) with eps 1e-6.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.settings import MATRICES, NEWTON_SCHULZ_STEPS, InnerOptimizer
from algorithms.shape import Parameter

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


class Uncompiled(torch.optim.Optimizer):
    """Methods of torch's optimizers without what torch.compile needs around them: to call that imports a compiler, a
    third of the time that a trainer takes to start, and 70 MB for good. What they compute is the same.
    """

    add_param_group: Any = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad: Any = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict: Any = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class UncompiledAdamW(Uncompiled, torch.optim.AdamW):
    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class UncompiledSGD(Uncompiled, torch.optim.SGD):
    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class SlottedOptimizer(Uncompiled):
    """An optimizer whose state can be allocated before the first step. Groups name their `slots`."""

    def allocate(self, parameter: nn.Parameter, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state of one parameter, zeros when it is new."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            if "step" in group["slots"]:
                state["step"] = torch.zeros(())
            state |= {slot: torch.zeros_like(parameter) for slot in group["slots"] if slot != "step"}
        return state

    def allocate_all(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.allocate(parameter, group)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch's has overloads with a closure
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.allocate(parameter, group), group)

    def update(self, x: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError


class Lion(SlottedOptimizer):
    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "slots": ("exp_avg",), "weight_decay": 0.0})

    def update(self, x: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        (b1, b2), m = group["betas"], state["exp_avg"]
        x.mul_(1 - group["lr"] * group["weight_decay"])
        x.sub_(torch.lerp(m, g, 1 - b1).sign_(), alpha=group["lr"])
        m.lerp_(g, 1 - b2)


class Adopt(SlottedOptimizer):
    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        slots = ("step", "exp_avg", "exp_avg_sq")
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "slots": slots, "weight_decay": 0.0})

    def update(self, x: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        (b1, b2), m, v = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        taken = float(state["step"])
        state["step"] += 1
        if taken == 0:  # the first gradient only begins the second moment
            v.addcmul_(g, g)
            return
        x.mul_(1 - group["lr"] * group["weight_decay"])
        m.lerp_((g / v.sqrt().clamp_min_(group["eps"])).clamp_(-(taken**0.25), taken**0.25), 1 - b1)
        x.sub_(m, alpha=group["lr"])
        v.mul_(b2).addcmul_(g, g, value=1 - b2)


class Muon(SlottedOptimizer):
    """Groups with the slot `momentum_buffer` are orthogonalised, the others are AdamW's."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, betas: tuple[float, float], eps: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": 0.0, "slots": ()}
        super().__init__(groups, defaults)

    def update(self, x: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        lr = group["lr"]
        x.mul_(1 - lr * group["weight_decay"])
        if "momentum_buffer" in state:
            m = state["momentum_buffer"].mul_(group["momentum"]).add_(g)
            direction = newton_schulz(g.add(m, alpha=group["momentum"]))
            x.sub_(direction, alpha=0.2 * max(x.shape[-2:]) ** 0.5 * lr)
            return
        state["step"] += 1
        (b1, b2), m, v, step = group["betas"], state["exp_avg"], state["exp_avg_sq"], float(state["step"])
        m.lerp_(g, 1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        scale = v.sqrt().div_((1 - b2**step) ** 0.5).add_(group["eps"])
        x.addcdiv_(m, scale, value=-lr / (1 - b1**step))


def newton_schulz(matrices: Tensor) -> Tensor:
    """(..., p, q) -> nearly orthogonal matrices of the same singular vectors: singular values near 1."""
    a, b, c = _NEWTON_SCHULZ
    turned = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x: Tensor = turned / (turned.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x


Builder = Callable[[InnerOptimizer, Sequence[nn.Parameter], Sequence[Parameter] | None], torch.optim.Optimizer]


def _groups(settings: InnerOptimizer, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Weight decay applies to matrices only, as is customary."""
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _adamw(
    settings: InnerOptimizer, parameters: Sequence[nn.Parameter], described: Sequence[Parameter] | None
) -> torch.optim.Optimizer:
    groups = _groups(settings, parameters)
    return UncompiledAdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, foreach=True)


def _sgd(
    settings: InnerOptimizer, parameters: Sequence[nn.Parameter], described: Sequence[Parameter] | None
) -> torch.optim.Optimizer:
    return UncompiledSGD(parameters, lr=settings.lr)


def _lion(
    settings: InnerOptimizer, parameters: Sequence[nn.Parameter], described: Sequence[Parameter] | None
) -> torch.optim.Optimizer:
    return Lion(_groups(settings, parameters), settings.lr, settings.betas)


def _adopt(
    settings: InnerOptimizer, parameters: Sequence[nn.Parameter], described: Sequence[Parameter] | None
) -> torch.optim.Optimizer:
    return Adopt(_groups(settings, parameters), settings.lr, settings.betas, settings.eps)


def _muon(
    settings: InnerOptimizer, parameters: Sequence[nn.Parameter], described: Sequence[Parameter] | None
) -> torch.optim.Optimizer:
    assert described is not None, "muon needs the parameters' roles"
    matrix = {id(p) for p, d in zip(parameters, described, strict=True) if d.role in MATRICES}
    adam = _groups(settings, [p for p in parameters if id(p) not in matrix])
    groups = [
        {
            "params": [p for p in parameters if id(p) in matrix],
            "weight_decay": settings.weight_decay,
            "slots": ("momentum_buffer",),
        },
        *({**group, "slots": ("step", "exp_avg", "exp_avg_sq")} for group in adam),
    ]
    return Muon(groups, settings.lr, settings.momentum, settings.betas, settings.eps)


REGISTRY: dict[str, Builder] = {"adamw": _adamw, "sgd": _sgd, "lion": _lion, "adopt": _adopt, "muon": _muon}
