"""What a method is: a plan, a memory, a cost, and a worker that trains by it. `find` knows every method by its file.

A method file shows its formula on top and defines one subclass of `Method` (pure, from sizes alone, so that it serves a
100B projection as well as a run) and one of `Worker` (torch, executes the same plan). A new method is a new file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from algorithms.exchange import Exchange
from algorithms.inner import InnerOptimizer, Schedule, flatten, unflatten_into
from algorithms.shape import ModelShape
from netsim.documents import Document, validate
from netsim.errors import InputError
from netsim.traffic import Collective, Plan, Transfer, WireType

CATCH_UP = "catch_up"  # how the names of transfers begin by which a worker that missed something catches up


class Options(Document):
    """Options that every method has."""

    wire_dtype: WireType = WireType.FP32


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class ModelView:
    """Which part of the model a worker holds. residents[layer] are expert ids, ascending; None means all experts.

    routing: `full` as in a full replica; `masked` top-k among residents; `skip` global top-k, absent experts dropped.
    """

    residents: tuple[tuple[int, ...], ...] | None = None
    routing: Literal["full", "masked", "skip"] = "full"


@dataclass(frozen=True)
class WorkerSetup:
    """Everything that a worker is made from. `exchange` is the WAN; `control` is unshaped, for instrumentation only.

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

    @property
    def world(self) -> int:
        return self.plan.sites


class Worker(ABC):
    """One worker's training state under a method.

    `begin` and `local_update` are called only in steps in which `plan.active` names this worker; `synchronise` in all,
    for a server has work to do also when it does not train.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self.module: nn.Module = setup.model  # what the trainer calls for the training loss (DDP wraps it)

    def begin(self, step: int) -> None:  # noqa: B027 - a hook that most methods leave empty
        """Before the forward pass of `step`."""

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
        """Drop what is under way: its results will not come, and the step that needs them is made anew or left out."""
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


class Method(ABC, Generic[OptionsT]):
    """A method with its options."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Options]]

    # When a site is lost: `redo` the interrupted step among those left; `resync`, everyone taking over one worker's
    # state; or `rollback` to the last checkpoint, because a step needs everyone.
    after_loss: ClassVar[Literal["redo", "resync", "rollback"]] = "redo"

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @abstractmethod
    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        """All communication of a run, from sizes alone."""

    @abstractmethod
    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        """Persistent bytes at `rank` by component (fp32 training state): weights, gradients, inner_moments,
        outer_parameters, outer_momentum, error_feedback, projections, ... (only those that exist)."""

    def flops_per_token(self, shape: ModelShape, sites: int) -> float:
        """Training FLOPs of one token at one worker."""
        return shape.flops_per_token()

    def view(self, shape: ModelShape, sites: int, rank: int, seed: int = 0) -> ModelView:
        """The part of the model that `rank` holds at the start."""
        return ModelView()

    def schedule(self, base: Schedule) -> Schedule:
        """The learning-rate schedule, given the suite's."""
        return base

    def survives(self, shape: ModelShape, sites: int, present: tuple[int, ...], seed: int = 0) -> bool:
        """Whether the ranks `present` (at least one) can go on without the others."""
        return True

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Numbers in `Worker.shared`. By default those components of `memory` that all workers hold alike, weights only
        where the method does not keep their last common value.
        """
        held = self.memory(shape, sites)
        common = held.get("outer_parameters") or held.get("reference") or held["weights"]
        return (common + held.get("outer_momentum", 0)) // WireType.FP32.bytes_for(1)

    def catch_up(
        self, shape: ModelShape, sites: int, root: int, behind: tuple[int, ...], present: tuple[int, ...], seed: int = 0
    ) -> tuple[Transfer, ...]:
        """The transfers of `Worker.catch_up`, of all members together, from sizes alone."""
        return (to_those_behind(CATCH_UP, self.shared(shape, sites), root, behind),)

    def scale(self, transfer: Transfer, present: tuple[int, ...]) -> float:
        """What a sum over `present` is multiplied by, to stand for the sum over the transfer's members."""
        return len(transfer.members) / len(present)

    @abstractmethod
    def worker(self, setup: WorkerSetup) -> Worker:
        """A worker that trains by this method."""


def to_those_behind(name: str, elements: int, root: int, behind: tuple[int, ...]) -> Transfer:
    """`elements` numbers, whole, from `root` to those behind."""
    return Transfer(name, elements, tuple(sorted({root, *behind})), collective=Collective.BROADCAST, root=root)


def names() -> list[str]:
    """Every method, by name: the files of algorithms/methods/."""
    folder = Path(__file__).parent / "methods"
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def find(name: str, options: Mapping[str, Any], where: str) -> Method[Any]:
    """The method `name` with `options`; unknown names and options are InputErrors that point into `where`."""
    if name not in names():
        raise InputError(where, "method", name, f"one of {', '.join(names())}")
    module = import_module(f"algorithms.methods.{name}")
    kind: type[Method[Any]] = module.METHOD
    return kind(validate(kind.Options, dict(options), where, name))
