"""Memory of a site by component: what the method keeps, what precision adds, activations, buffers."""

from __future__ import annotations

from typing import Any, Literal

from algorithms.method import Method
from algorithms.shape import ModelShape
from netsim.simulated.closed_form import Load

HALF, FULL = 2, 4  # bytes of a number


def activation_bytes(
    shape: ModelShape, sequences: int, recompute: Literal["none", "full"], top_k: int | None = None
) -> int:
    """Bytes kept for the backward pass of `sequences` sequences, in half precision with fused attention.

    Korthikanti et al. 2022 (arXiv 2205.05198), equation 1 without the 5 a s / h of attention scores (they are computed
    again, as flash attention does) and without dropout masks: per token and layer 16 d bytes around attention and
    norms, 4 f for the MLP (6 f when gated), where f is the inner width that a token meets. With full recomputation
    only each layer's input, 2 d, and one layer's own. Logits are kept in full precision: 4 V per token.
    """
    d = shape.width
    if shape.kind == "dense":
        mlp = (6 if shape.gated else 4) * shape.hidden
    else:
        mlp = 4 * (shape.top_k if top_k is None else top_k) * shape.expert_hidden + 4 * shape.experts
    layer = 16 * d + mlp
    layers = shape.layers * layer if recompute == "none" else shape.layers * HALF * d + layer
    return sequences * shape.sequence * (layers + FULL * shape.vocabulary)


def site_memory(
    method: Method[Any],
    shape: ModelShape,
    sites: int,
    load: Load,
    precision: Literal["mixed", "fp32"],
    sequences: int,
    recompute: Literal["none", "full"],
) -> dict[str, int]:
    """Bytes by component at the site that holds most.

    The method's own state is fp32, as trained here. Mixed precision adds a half-precision copy of the weights:
    2 + 4 + 4 + 8 = 18 bytes per parameter for AdamW, as FoMoE counts (section 4.1). Buffers: the flat copies of what
    one synchronisation sends; DDP's buckets are the gradients themselves.
    """
    state = max((method.memory(shape, sites, rank) for rank in {0, sites - 1}), key=lambda m: sum(m.values()))
    found = dict(state)
    if precision == "mixed":
        found["half_precision_weights"] = state["weights"] * HALF // FULL
    top_k = None
    if shape.kind == "moe" and (residents := method.view(shape, sites, 0).residents) is not None:
        top_k = min(shape.top_k, len(residents[0]))
    found["activations"] = activation_bytes(shape, sequences, recompute, top_k)
    found["communication_buffers"] = max(
        (phase.size for pattern in load.patterns for phase in pattern.phases if phase.buffered), default=0
    )
    return found
