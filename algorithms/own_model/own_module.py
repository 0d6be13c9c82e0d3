"""Somebody's own `nn.Module`: built by a function of a file or a package, counted on the meta device, scored.

    def build(width: int = 64) -> nn.Module: ...        # model: {module: my_model.py:build, arguments: {width: 128}}

Its forward takes tokens (B, T) int64 and returns logits (B, T, V), or an object that has them as `logits`, as Hugging
Face's models do. A module with `loss(output, targets)` is scored by that, the mean over the targets; one with
`auxiliary_loss()` has it added for training alone. All methods train all parameters, so each must receive a gradient.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from algorithms.loading import content_of, line_in, module_from
from algorithms.own_model.module_shape import ModuleShape, layer_of, role_of
from algorithms.shape import Parameter, Role
from netsim.documents import validate
from netsim.errors import InputError, Phrase

Builder = Callable[..., nn.Module]
_building = threading.Lock()  # the random state that a function draws from is the process's


def counted(fields: Mapping[str, Any], where: str, folder: Path | None = None) -> ModuleShape:
    """The shape of a model given with `module`, completed by what its module is.

    folder: from which a file is named.   InputError for a module that cannot be built, run forwards and backwards, or
    trained by every method; it names the file's line where the error arose in it.
    """
    given = dict(fields)
    patterns = _patterns(given.pop("roles", {}), where)
    given["module"] = reference = _absolute(str(given["module"]), folder)
    shape = validate(ModuleShape, {"width": 8, "name": reference.rpartition(":")[2], **given}, where, "model")
    builder, file = _builder(reference, where)
    for device in ("meta", "cpu"):
        with _blamed(where, file, "a function that builds a module from the `arguments`"), torch.device(device):
            module = builder(**shape.arguments)
        _check(module, where, reference)
        if (flops := _token_flops(module, shape, where, file, device)) is not None:
            break
    assert flops is not None
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    tensors = tuple(
        Parameter(name, tuple(p.shape), _role(name, p, embedded, patterns), layer_of(name))
        for name, p in module.named_parameters()
    )
    layers = 1 + max((t.layer for t in tensors if t.layer is not None), default=0)
    found = {"source": _digest(file, builder), "tensors": tensors, "token_flops": flops}
    found |= {"layers": given.get("layers", layers), "width": given.get("width", _width(tensors))}
    return shape.model_copy(update=found)


def build(shape: ModuleShape, seed: int) -> nn.Module:
    """The module in fp32 on the CPU, with initial values that depend on `seed` alone.

    InputError if its file is no longer the one that was counted.
    """
    builder, file = _builder(shape.module, "model")
    if shape.source not in ("", _digest(file, builder)):
        raise InputError("model", "module", f"{file}, changed", "the file as it was when the suite was read")
    with _building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = builder(**shape.arguments)
    found = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    if found != [(t.name, t.shape) for t in shape.tensors]:
        raise InputError("model", "module", f"{len(found)} parameters", "those that were counted on the meta device")
    return module


def loss(module: nn.Module, output: Any, targets_BT: Tensor) -> Tensor:
    """Mean loss of what `module` returned: its own, or the cross-entropy of logits in nats per token, in fp32."""
    own = getattr(module, "loss", None)
    if callable(own):
        scored: Tensor = own(output, targets_BT)
        return scored
    logits = output if isinstance(output, Tensor) else output.logits
    precise = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.flatten(0, -2).to(precise), targets_BT.flatten())


def auxiliary_loss(module: nn.Module) -> Tensor | float:
    own = getattr(module, "auxiliary_loss", None)
    return own() if callable(own) else 0.0


def _absolute(reference: str, folder: Path | None) -> str:
    place, _, function = reference.rpartition(":")
    if place.endswith(".py"):
        return f"{((folder or Path()) / place).resolve()}:{function}"
    return reference


def _builder(reference: str, where: str) -> tuple[Builder, Path | None]:
    """The function that is named, and the file that it stands in, if it is known."""
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(where, "model.module", reference, "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION")
    if place.endswith(".py"):
        home = module_from(Path(place), where, "model.module")
    else:
        try:
            home = import_module(place)
        except ImportError as error:
            raise InputError(where, "model.module", f"{place} ({error})", "a module that can be imported") from None
    found = getattr(home, name, None)
    if not callable(found):
        public = [
            n for n, value in vars(home).items() if inspect.isfunction(value) and value.__module__ == home.__name__
        ]
        raise InputError.unknown(where, "model.module", name, public, prefix=f"a function of {place}:")
    return found, Path(home.__file__) if home.__file__ else None


def _digest(file: Path | None, builder: Builder) -> str:
    """What the module's code is, so that changed code is another run."""
    source = content_of(file) if file is not None else repr(builder).encode()
    return hashlib.sha256(source).hexdigest()[:16]


def _check(module: object, where: str, reference: str) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(where, "model.module", f"{reference} returned {type(module).__name__}", "a torch.nn.Module")
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
            allowed = (
                "layers without running statistics, which no method averages: GroupNorm, or track_running_stats=False"
            )
            raise InputError(where, "model.module", f"{type(part).__name__} {name!r}", allowed)
    parameters = list(module.named_parameters())
    if not parameters:
        raise InputError(where, "model.module", f"{reference} without parameters", "a module to train")
    for name, parameter in parameters:
        if not parameter.requires_grad or parameter.dtype != torch.float32:
            found = f"{name!r} of {parameter.dtype}" + ("" if parameter.requires_grad else ", frozen")
            allowed = "parameters in fp32 that all require gradients (train.precision: bf16 is autocast)"
            raise InputError(where, "model.module", found, allowed)


def _token_flops(module: nn.Module, shape: ModuleShape, where: str, file: Path | None, device: str) -> float | None:
    """FLOPs of a forward and a backward pass of one sequence, by token; None if it has a step that `device` cannot do,
    as the meta device lacks some."""
    tokens = torch.zeros(1, shape.sequence, dtype=torch.int64, device=device)
    allowed = f"a module that takes tokens (1, {shape.sequence}) and returns logits"
    with _blamed(where, file, allowed), FlopCounterMode(display=False) as counter:
        try:
            output = module(tokens)
            torch.autograd.backward(loss(module, output, tokens) + auxiliary_loss(module))
        except NotImplementedError:
            if device == "meta":
                return None
            raise
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if isinstance(logits, Tensor) and not callable(getattr(module, "loss", None)):
        expected = (1, shape.sequence, shape.vocabulary)
        if tuple(logits.shape) != expected:
            allowed = f"logits {expected}: (batch, sequence, vocabulary); or a module with a `loss(output, targets)`"
            raise InputError(where, "model.module", f"an output of shape {tuple(logits.shape)}", allowed)
    idle = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    if idle:
        allowed = "a module whose every parameter receives a gradient: leave the others out of it"
        raise InputError(where, "model.module", f"no gradient for {', '.join(idle[:3])}", allowed)
    return float(counter.get_total_flops() / shape.sequence)


@contextmanager
def _blamed(where: str, file: Path | None, allowed: str) -> Iterator[None]:
    """Whatever the user's code raises becomes one message with the line of its file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        found = Phrase(f"{type(error).__name__}: {error}")
        line = line_in(error, file) if file is not None else None
        if line is None:
            raise InputError(where, "model.module", found, allowed) from error
        raise InputError(str(file), "", found, allowed, line=line) from error


def _patterns(roles: object, where: str) -> dict[Role, str]:
    """The suite's patterns of names, by role."""
    if not isinstance(roles, dict):
        raise InputError(where, "model.roles", roles, "a mapping from roles to regular expressions on names")
    known = {role.value for role in Role}
    for role in roles:
        if role not in known:
            raise InputError.unknown(where, "model.roles", str(role), known)
    return {Role(role): str(pattern) for role, pattern in roles.items()}


def _role(name: str, parameter: nn.Parameter, embedded: set[int], patterns: dict[Role, str]) -> Role:
    if id(parameter) in embedded:
        return Role.EMBEDDING
    return role_of(name, tuple(parameter.shape), patterns)


def _width(tensors: tuple[Parameter, ...]) -> int:
    """The most frequent side of a matrix, the model's width in all usual architectures; at least 8."""
    sides = Counter(side for t in tensors if len(t.shape) == 2 for side in t.shape)
    return max(8, min(sides, key=lambda side: (-sides[side], side))) if sides else 8
