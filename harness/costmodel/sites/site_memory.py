"""Memory of a site by component: what the method keeps, what precision adds, activations, buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from algorithms.method import ON_HOST, Method
from algorithms.shape import ModelShape
from harness.spec.scenario import Precision, StateDtype
from harness.spec.scenario_sites import SiteEntry
from netsim.simulated.closed_form import Load

HALF, FULL = 2, 4  # bytes of a number
WIDTHS: Mapping[StateDtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
COPY = "half_precision_weights"


@dataclass(frozen=True)
class NumberWidths:
    """Bytes of a number under a precision: of the state by component, of the weights' copy that the layers use (0: none
    beside the weights), and of an activation."""

    copy: int
    activation: int = HALF
    other: int = FULL
    moments: int | None = None


# fp8 as DeepSeek-V3 trains (arXiv 2412.19437, section 3.3): fp32 weights and gradients, bf16 moments, products in fp8.
PRECISIONS: Mapping[Precision, NumberWidths] = {
    "fp32": NumberWidths(copy=0),
    "mixed": NumberWidths(copy=HALF),
    "bf16": NumberWidths(copy=0, other=HALF),
    "fp8": NumberWidths(copy=1, activation=1, moments=HALF),
}


@dataclass(frozen=True)
class SiteMemory:
    """Bytes by component, in the accelerators and at the host; bytes that cross between them in a step, and in a
    synchronisation."""

    device: dict[str, int]
    host: dict[str, int]
    moved_per_step: int = 0
    moved_per_sync: int = 0


def activation_bytes(
    shape: ModelShape,
    sequences: int,
    recompute: Literal["none", "selective", "full"],
    top_k: int | None = None,
    attention: Literal["fused", "plain"] = "fused",
    width: int = HALF,
) -> int:
    """Bytes kept for the backward pass of `sequences` sequences, in half precision; in proportion for another `width`
    in bytes of a number, but for the logits.

    Korthikanti et al. 2022 (arXiv 2205.05198), equation 1 without dropout masks: per token and layer, 8 d bytes around
    norms and matrices, 2 for each number of queries, keys, values and attention's result (16 d in all if these are as
    wide as the model), 4 f for the MLP (6 f when gated), where f is the inner width that a token meets. Plain attention
    keeps 4 a s more, scores and their softmax, unless they are computed again. With full recomputation only each
    layer's input, 2 d, and one layer's own. Logits are kept in full precision: 4 V per token.
    """
    d = shape.width
    query, key, value = shape.attention_widths
    around = 8 * d + HALF * (query + key + value + (value if shape.latent else query))
    if shape.latent is not None:
        around += HALF * (shape.latent.query_rank + shape.latent.key_value_rank + shape.latent.rotary)
    if attention == "plain" and recompute != "selective":
        around += 2 * HALF * shape.heads * shape.sequence
    per_number = 6 if shape.gated or shape.gated_experts else 4
    dense = around + per_number * shape.hidden
    layer, layers = dense, (shape.layers - shape.expert_layers) * dense
    if shape.kind == "moe":
        met = (shape.top_k if top_k is None else top_k) + shape.shared_experts
        layer = around + per_number * met * shape.expert_hidden + 4 * shape.experts
        layers += shape.expert_layers * layer
    if recompute == "full":
        layers = shape.layers * HALF * d + layer
    return sequences * shape.sequence * (layers * width // HALF + FULL * shape.vocabulary)


def site_memory(
    method: Method[Any],
    shape: ModelShape,
    sites: int,
    load: Load,
    site: SiteEntry,
    sequences: float,
    precision: Precision = "mixed",
    dtypes: Mapping[str, StateDtype] = {},
) -> SiteMemory:
    """Bytes by component at the site that holds most, which takes `sequences` sequences a step.

    The method's own state is fp32, as trained here, unless `precision` or `dtypes` say otherwise. Mixed precision adds
    a half-precision copy of the weights: 2 + 4 + 4 + 8 = 18 bytes per parameter for AdamW, as FoMoE counts (section
    4.1). State is divided among the site's devices, unless its layout says what replicas hold whole. Buffers: the flat
    copies of what one synchronisation sends; DDP's buckets are the gradients themselves.
    """
    widths = PRECISIONS[precision]
    state = max((method.memory(shape, sites, rank) for rank in {0, sites - 1}), key=lambda m: sum(m.values()))
    found = {name: size * _width(name, widths, dtypes) // FULL for name, size in state.items()}
    if widths.copy:
        found[COPY] = state["weights"] * widths.copy // FULL
    for name in _whole_at_replicas(site, bool(widths.copy)) & found.keys():
        assert site.parallel is not None
        found[name] *= site.devices // site.parallel.model_parallel
    host = {name: found.pop(name) for name in _offloaded(site, bool(widths.copy)) & found.keys()}
    top_k = None
    if shape.kind == "moe" and (residents := method.view(shape, sites, 0).residents) is not None:
        top_k = min(shape.top_k, len(residents[0]))
    kept = _sequences_kept(site, sequences)
    found["activations"] = activation_bytes(shape, kept, site.recompute, top_k, site.attention, widths.activation)
    found["communication_buffers"] = max(
        (phase.size for pattern in load.patterns for phase in pattern.phases if phase.buffered), default=0
    )
    # The optimizer runs at the host (Ren et al. 2021, arXiv 2101.06840): gradients go there and weights come back.
    per_step = found["gradients"] + found.get(COPY, found.get("weights", 0)) if "inner_moments" in host else 0
    return SiteMemory(found, host, per_step, 2 * sum(host[name] for name in host.keys() & ON_HOST))


def _width(component: str, widths: NumberWidths, dtypes: Mapping[str, StateDtype]) -> int:
    if component in dtypes:
        return WIDTHS[dtypes[component]]
    return widths.moments if component == "inner_moments" and widths.moments else widths.other


def _whole_at_replicas(site: SiteEntry, copied: bool) -> set[str]:
    """Components that each replica of a site's layout holds whole (Rajbhandari et al. 2020, arXiv 1910.02054)."""
    if site.parallel is None or site.parallel.sharding == "full":
        return set()
    if site.parallel.sharding == "none":
        return {"weights", "gradients", "inner_moments", COPY}
    return {"gradients", COPY if copied else "weights"}


def _offloaded(site: SiteEntry, copied: bool) -> set[str]:
    outer = set(ON_HOST) if site.offload in ("outer", "both") else set()
    if site.offload in ("optimizer", "both"):
        outer |= {"inner_moments", "weights"} if copied else {"inner_moments"}
    return outer


def _sequences_kept(site: SiteEntry, sequences: float) -> int:
    """Sequences whose activations a site keeps at once. With pipeline stages, as many micro-batches as there are stages
    are under way at the first stage, which every device is taken to be."""
    layout = site.parallel
    if layout is None:
        return min(site.devices * site.micro_batch, max(1, round(sequences)))
    replicas = site.devices // layout.model_parallel
    under_way = min(layout.pipeline, layout.micro_batches(site.devices, site.micro_batch, sequences))
    return max(1, min(replicas * site.micro_batch * under_way, round(sequences)))
