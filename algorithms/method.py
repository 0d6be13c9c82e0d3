"""What a method is: a plan, a memory, a cost, and a worker that trains by it. `find` knows every method by its file.

A method file shows its formula on top and defines one subclass of `Method` (pure, from sizes alone, so that it serves a
100B projection as well as a run) and one of `Worker` (torch, executes the same plan). A new method is a new file.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import field_validator

from algorithms.catch_up import CATCH_UP, to_those_behind
from algorithms.loading import installed, is_file, module_from
from algorithms.settings import InnerOptimizer, LearningRateSchedule, OptimizerName
from algorithms.shape import ModelShape
from netsim.documents import Document, validate
from netsim.errors import InputError
from netsim.traffic import Plan, Transfer, WireType

if TYPE_CHECKING:  # a worker needs torch, which plans and projections do without
    from algorithms.worker import Worker, WorkerSetup


class Options(Document):
    """Options that every method has."""

    wire_dtype: WireType = WireType.FP32
    inner_optimizer: OptimizerName | None = None  # default: the suite's, which also gives its settings

    @field_validator("wire_dtype")
    @classmethod
    def _of_numbers(cls, wire: WireType) -> WireType:
        if wire is WireType.UINT8:
            raise ValueError("a wire type of numbers: uint8 carries bytes that a codec has made")
        return wire


OptionsT = TypeVar("OptionsT", bound=Options)


# Components of the memory that are touched at synchronisations only, so that they may lie in host memory beside an
# accelerator, as the public LoRDO runs keep the reference. All others are needed at every step.
ON_HOST = frozenset(
    {"reference", "outer_parameters", "outer_momentum", "server_parameters", "server_momentum", "sent_gradients"}
)


@dataclass(frozen=True)
class ModelView:
    """Which part of the model a worker holds. residents[layer] are expert ids, ascending; None means all experts.

    routing: `full` as in a full replica; `masked` top-k among residents; `skip` global top-k, absent experts dropped.
    """

    residents: tuple[tuple[int, ...], ...] | None = None
    routing: Literal["full", "masked", "skip"] = "full"


class Method(ABC, Generic[OptionsT]):
    """A method with its options: what it moves, holds and computes, as pure functions of sizes.

    A subclass names its `Options`, and defines `plan`, `memory` and `worker`; docs/add-a-method.md has a whole one.

    Example:
        >>> method = find("diloco", {"sync_every": 50}, "here")
        >>> shape = find_model("tiny", "here")
        >>> list(method.plan(shape, sites=4, steps=150).sync_steps())
        [50, 100, 150]
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Options]]

    # When a site is lost: `redo` the interrupted step among those left; `resync`, everyone taking over one worker's
    # state; or `rollback` to the last checkpoint, because a step needs everyone.
    after_loss: ClassVar[Literal["redo", "resync", "rollback"]] = "redo"

    def __init__(self, options: OptionsT, inner: InnerOptimizer | None = None) -> None:
        self.options = options
        inner = inner or InnerOptimizer()
        chosen = options.inner_optimizer or self.preferred_inner
        self.inner = inner if chosen is None else inner.model_copy(update={"name": chosen})

    # Whether it averages gradients at every step, as if all sites' batches were one: then unlike batches weigh by
    # their sequences.
    joins_batches: ClassVar[bool] = False

    # Whether its workers encode payloads on the CPU, so that they cannot train on a GPU.
    cpu_only: ClassVar[bool] = False

    # The inner optimizer that the method is published with, where it is part of the method.
    preferred_inner: ClassVar[OptimizerName | None] = None

    @property
    def may_skip_steps(self) -> bool:
        """Whether a site may leave out local steps (`compute.sites.NAME.local_steps`): all that steps do between two
        synchronisations is to move the worker's own parameters."""
        return False

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        """The inner optimizers that it works with: by default all, since it does not look into their state."""
        return get_args(OptimizerName)

    def moment_elements(self, shape: ModelShape) -> int:
        """Numbers in the inner optimizer's moments of a whole model."""
        return self.inner.moment_elements(shape.parameters)

    def moment_bytes(self, shape: ModelShape) -> int:
        return 4 * self.moment_elements(shape)

    def local_memory(self, shape: ModelShape) -> dict[str, int]:
        """The bytes of local training alone: fp32 weights, their gradients, the inner optimizer's moments."""
        size = 4 * shape.count()
        return {"weights": size, "gradients": size, "inner_moments": self.moment_bytes(shape)}

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

    def flops_per_step(self, shape: ModelShape, sites: int) -> float:
        """FLOPs of one step's inner optimizer at one worker, beside those of its tokens."""
        return self.inner.flops_per_step(shape.parameters)

    def view(self, shape: ModelShape, sites: int, rank: int, seed: int = 0) -> ModelView:
        """The part of the model that `rank` holds at the start."""
        return ModelView()

    def schedule(self, base: LearningRateSchedule) -> LearningRateSchedule:
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

    def preload(self) -> None:
        """Import what `worker` will need, where that takes long: trainers have time as long as links are checked."""

    @abstractmethod
    def worker(self, setup: WorkerSetup) -> Worker:
        """A worker that trains by this method."""


def names() -> list[str]:
    """Every method, by name: the files of algorithms/methods/."""
    folder = Path(__file__).parent / "methods"
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def summaries() -> dict[str, str]:
    """Each method's `summary`, by name. Read from the source, since importing a method imports torch."""
    folder = Path(__file__).parent / "methods"
    return {name: _summary(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) for name in names()}


def _summary(module: ast.Module) -> str:
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "summary" for t in node.targets):
            return str(ast.literal_eval(node.value))
    return ""


@contextmanager
def placed_errors(method: Method[Any], where: str) -> Iterator[None]:
    """Within it, an InputError of the method itself gets `where`, the method's place in a file."""
    try:
        yield
    except InputError as error:
        if error.where.startswith(where) or "." in error.where:
            raise
        field = f"options.{error.field}" if error.field in method.Options.model_fields else error.field
        raise InputError(where, field, error.found, error.allowed, error.meant) from None


def find(name: str, options: Mapping[str, Any], where: str, inner: InnerOptimizer | None = None) -> Method[Any]:
    """The method `name` with `options`; unknown names and options are InputErrors that point into `where`.

    inner: the suite's inner optimizer; by default AdamW, as in a projection.
    """
    kind = find_class(name, where)
    method = kind(validate(kind.Options, dict(options), where, "options"), inner)
    if method.inner.name not in method.inner_optimizers:
        raise InputError(
            where, "train.optimizer.name", method.inner.name, f"with {name} {_listed(method.inner_optimizers)}"
        )
    return method


def find_class(name: str, where: str) -> type[Method[Any]]:
    """The method `name`: of this package, of an installed one (`longhaul.methods`), or in the file of that path."""
    if is_file(name):
        return _checked(getattr(module_from(Path(name), where), "METHOD", None), name, where)
    if name in names():
        return _checked(import_module(f"algorithms.methods.{name}").METHOD, name, where)
    if name in (others := installed()):
        found = others[name].load()
        return _checked(getattr(found, "METHOD", found), f"{name} ({others[name].value})", where)
    raise InputError.unknown(where, "method", name, [*names(), *others], prefix="a path to a .py file, or one of")


def _checked(found: object, name: str, where: str) -> type[Method[Any]]:
    """`found` if it is a method. InputError names what its author has to add."""
    if not (isinstance(found, type) and issubclass(found, Method)):
        allowed = "a file with `METHOD = YourMethod`, a subclass of algorithms.method.Method"
        raise InputError(where, "method", name, allowed)
    missing = [attribute for attribute in ("name", "summary", "Options") if not hasattr(found, attribute)]
    missing += sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        without = f"{name}: {found.__name__} without {', '.join(missing)}"
        raise InputError(where, "method", without, "a class that defines them")
    return found


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
