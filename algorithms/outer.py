"""Outer (server) optimizers: what is done with the averaged pseudo-gradient g = x - mean(x_k), on flat vectors.

    fedavg    x = x - g                                                       McMahan et al. 2017
    nesterov  m = mu m + g;            x = x - eta (g + mu m)                 as torch.optim.SGD(nesterov=True)
    fedmom    v' = x - eta g;          x = (1 + mu) v' - mu v;  v = v'        Huo et al., arXiv 2002.02090; v_0 = x_0
    fedadam   m = b1 m - (1-b1) g;     v = b2 v + (1-b2) g^2;                 Reddi et al., arXiv 2003.00295,
              x = x + eta m / (sqrt(v) + tau)                                 algorithm 2; v_0 = tau^2
    fedyogi   as fedadam, but          v = v - (1-b2) g^2 sign(v - g^2)

fedmom and nesterov follow the same trajectory, written in different variables.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from netsim.documents import Document

OuterName = Literal["fedavg", "nesterov", "fedmom", "fedadam", "fedyogi"]


class OuterOptimizer(Document):
    """`lr` eta, `momentum` mu, `betas` and `tau` of the adaptive two. fedavg has none of them."""

    name: OuterName = "fedavg"
    lr: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.99)
    tau: float = Field(default=1e-3, gt=0)

    @property
    def slots(self) -> tuple[str, ...]:
        """The vectors of the parameters' size that it keeps."""
        return {"fedavg": (), "nesterov": ("m",), "fedmom": ("v",)}.get(self.name, ("m", "v"))

    def start(self, x: Tensor) -> dict[str, Tensor]:
        """Its state before the first step from `x` (elements,)."""
        if self.name == "fedmom":
            return {"v": x.clone()}
        state = {slot: torch.zeros_like(x) for slot in self.slots}
        if self.name in ("fedadam", "fedyogi"):
            state["v"].fill_(self.tau**2)
        return state

    @torch.no_grad()
    def step(self, x: Tensor, g: Tensor, state: dict[str, Tensor]) -> None:
        """Update `x` and `state` in place; `g` is used up."""
        if self.name == "fedavg":
            x.sub_(g)
        elif self.name == "nesterov":
            nesterov_(x, g, state["m"], self.lr, self.momentum)
        elif self.name == "fedmom":
            ahead = x.sub(g, alpha=self.lr)
            torch.lerp(ahead, state["v"], -self.momentum, out=x)  # ahead + mu (ahead - v)
            state["v"].copy_(ahead)
        else:
            (b1, b2), m, v = self.betas, state["m"], state["v"]
            m.mul_(b1).sub_(g, alpha=1 - b1)
            square = g.square_()
            if self.name == "fedadam":
                v.lerp_(square, 1 - b2)
            else:
                v.sub_(square.mul_(torch.sign(v - square)), alpha=1 - b2)
            x.addcdiv_(m, v.sqrt().add_(self.tau), value=self.lr)


def nesterov_(x: Tensor, g: Tensor, m: Tensor, lr: float, momentum: float) -> None:
    """m = mu m + g; x = x - lr (g + mu m). In place; `g` is used up."""
    m.mul_(momentum).add_(g)
    x.sub_(g.add_(m, alpha=momentum), alpha=lr)
