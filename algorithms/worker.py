"""What a worker is: the training state of one site under a method. In the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from algorithms.catch_up import CATCH_UP, to_those_behind
from algorithms.exchange import Exchange
from algorithms.inner import flatten, unflatten_into
from algorithms.settings import InnerOptimizer
from algorithms.shape import ModelShape
from algorithms.site_group import SiteGroup
from netsim.traffic import Plan, Transfer


@dataclass(frozen=True)
class WorkerSetup:
    """Everything that a worker is made from. `exchange` is the WAN; `control` is unshaped, for instrumentation only.

    `site`: the other workers of the same site, where it has several.
    `plan` was made with `seed`, so that what a method draws from the seed is drawn alike in both.
    """

    model: nn.Module
    shape: ModelShape
    plan: Plan
    rank: int
    exchange: Exchange
    control: Exchange
    optimizer: InnerOptimizer
    seed: int
    site: SiteGroup | None = None

    @property
    def world(self) -> int:
        return self.plan.sites


class Worker(ABC):
    """One worker's training state under a method.

    `begin` and `local_update` are called only in steps in which `plan.active` names this worker; `synchronise` in all,
    for a server has work to do also when it does not train. Learning rates are per step, bytes are of fp32 tensors.

    Example:
        >>> sorted(Worker.__abstractmethods__)  # what a method's worker defines
        ['load', 'local_update', 'memory', 'state', 'synchronise']
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self.module: nn.Module = setup.model  # what the trainer calls for the training loss (DDP wraps it)

    def begin(self, step: int) -> None:  # noqa: B027 - a hook that most methods leave empty
        """Before the forward pass of `step`."""

    def average_gradients(self, step: int, site: SiteGroup) -> None:
        """After backward of `step`, at a site with several workers: gradients become those of the site's batch."""
        site.average_gradients(step, self.setup.model.parameters())

    @abstractmethod
    def local_update(self, step: int, lr: float) -> None:
        """After backward of `step`: what needs no network. Counted as compute."""

    @abstractmethod
    def synchronise(self, step: int, lr: float) -> None:
        """Carry out plan.at(step) and apply the results. Time blocked in the exchange counts as communication."""

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The model that the method evaluates after a synchronisation; collective, every worker enters it."""
        yield self.setup.model

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All persistent tensors beside the model's parameters, by name, for checkpoints."""

    @abstractmethod
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; the model's parameters are restored by the trainer."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Counted bytes of persistent tensors by component; equals `Method.memory` exactly after the first step."""

    def forget(self) -> None:
        """Drop the transfers in flight: no results will arrive, and steps that need them are redone or skipped."""
        self.setup.model.zero_grad(set_to_none=True)

    def own(self, name: str) -> bool:
        """Whether a piece of `state` is this worker's alone and nobody takes it over: moments that are kept local."""
        return name.startswith("inner.")

    def common(self) -> Tensor | None:
        """The parameters after the last synchronisation, flat, where the method keeps them."""
        return None

    def shared(self) -> dict[str, Tensor]:
        """What a worker that has missed a synchronisation takes over from one that has not, by name."""
        found = {name: tensor for name, tensor in self.state().items() if not self.own(name)}
        if self.common() is None:
            found |= {f"model.{name}": p.detach() for name, p in self.setup.model.named_parameters()}
        return found

    def catch_up(self, root: int, behind: tuple[int, ...], present: tuple[int, ...]) -> list[tuple[Transfer, Tensor]]:
        """This worker's part in the transfers by which the ranks `behind` catch up with `root`, which is not behind."""
        if self.setup.rank != root and self.setup.rank not in behind:
            return []
        flat = flatten(tensor.float() for _, tensor in self._in_order())
        return [(to_those_behind(CATCH_UP, flat.numel(), root, behind), flat)]

    def take_over(self, received: list[tuple[Transfer, Tensor]]) -> None:
        """Go on from what `catch_up` brought; what is this worker's own stays."""
        ((_, flat),) = received
        parts = torch.split(flat, [tensor.numel() for _, tensor in self._in_order()])
        self._adopt({n: p.view_as(t).to(t.dtype) for (n, t), p in zip(self._in_order(), parts, strict=True)})

    def _in_order(self) -> list[tuple[str, Tensor]]:
        """`shared`, in an order that does not depend on when an entry was made."""
        return sorted(self.shared().items())

    @torch.no_grad()
    def _adopt(self, shared: Mapping[str, Tensor]) -> None:
        for name, parameter in self.setup.model.named_parameters():
            if f"model.{name}" in shared:
                parameter.copy_(shared[f"model.{name}"])
        self.load({**self.state(), **{n: t for n, t in shared.items() if not n.startswith("model.")}})
        if (common := self.common()) is not None:
            unflatten_into(self.setup.model.parameters(), common)

    def metrics(self) -> dict[str, float]:
        """Method-specific numbers of the last synchronisation, logged with the step."""
        return {}
