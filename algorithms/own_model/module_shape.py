"""The sizes of somebody's own `nn.Module`, as stored with a run. No tensors; `own_module` counts them.

Roles come from the parameters' names, by the spellings of Hugging Face's, nanoGPT's and our own models; a suite may
give patterns of its own. Methods know a module by its roles and its layers alone.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator

from algorithms.shape import ModelShape, Parameter, Role

# By role, the first that matches a name decides. Of tensors with one axis all are norms or biases.
ROLE_PATTERNS: dict[Role, str] = {
    Role.EMBEDDING: r"(^|\.)(wte|wpe|embed\w*|\w*embedding\w*|lm_head|unembedding)(\.|$)",
    Role.ROUTER: r"(^|\.)router(\.|$)",
    Role.EXPERT: r"(^|\.)experts?(\.|$)",
    Role.ATTENTION: r"(^|\.)(\w*attn|\w*attention)(\.|$)",
    Role.FFN: r"(^|\.)(mlp|ffn|feed_forward|fc\d*|linear\d*)(\.|$)",
}
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")  # the first number in a name: layers.3.attention, h.3.mlp, 3.weight


class ModuleShape(ModelShape):
    """What was counted when the suite was read: `tensors` in the module's order, and training FLOPs of one token.

    module: FILE:FUNCTION or PACKAGE.MODULE:FUNCTION; the function is called with `arguments` and returns the module.
    source: digest of the function's file, so that another module is another run.   layers, width: by default counted
    from the names, and the most frequent side of a matrix.
    """

    kind: Any = "module"
    layers: int = Field(default=1, ge=1)
    heads: int = Field(default=1, ge=1)
    module: str
    arguments: dict[str, Any] = {}
    source: str = ""
    tensors: tuple[Parameter, ...] = ()
    token_flops: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind != "module":
            raise ValueError("kind: module, or none, together with module")
        return self

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter in the order of the module."""
        return self.tensors

    @cached_property
    def count_by_role(self) -> dict[Role, int]:
        """Numbers in the parameters of each role."""
        counts = dict.fromkeys(Role, 0)
        for tensor in self.tensors:
            counts[tensor.role] += tensor.elements
        return counts

    def flops_per_token(self, expert_share: float = 1.0, router_share: float = 1.0) -> float:
        """Training FLOPs of one token, counted in a forward and a backward pass of one sequence."""
        return self.token_flops


def role_of(name: str, shape: tuple[int, ...], patterns: dict[Role, str]) -> Role:
    """The role of a parameter by its name; `patterns` come before `ROLE_PATTERNS`."""
    for chosen in (patterns, ROLE_PATTERNS):
        for role, pattern in chosen.items():
            if re.search(pattern, name):
                return _with_axes(role, len(shape))
    return Role.OTHER if len(shape) > 1 else Role.NORM


def _with_axes(role: Role, axes: int) -> Role:
    """Only matrices, and stacks of them for experts, have a matrix's role."""
    if axes == 1:
        return Role.NORM
    if axes == 2 or role in (Role.EMBEDDING, Role.ROUTER) or (role is Role.EXPERT and axes == 3):
        return role
    return Role.OTHER


def layer_of(name: str) -> int | None:
    """The layer that a parameter belongs to, by the first number in its name."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None
