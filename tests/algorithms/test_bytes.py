"""The plan, what workers really exchange, and the papers' closed forms are the same number of bytes."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.lowrank import LOW_RANK, LowRankSizes
from algorithms.method import find, names
from algorithms.methods.fomoe import Fomoe
from algorithms.shape import ModelShape, Role
from netsim.traffic import Collective, WireType
from tests.algorithms.training import DENSE, MOE, train

WIRES = st.sampled_from([WireType.FP32, WireType.BF16, WireType.INT8, WireType.FP4])


@st.composite
def shapes(draw: st.DrawFn, kind: str | None = None) -> ModelShape:
    common: dict[str, Any] = {
        "layers": draw(st.integers(1, 5)),
        "width": 8 * draw(st.integers(1, 6)),
        "heads": draw(st.sampled_from([1, 2, 4])),
        "vocabulary": draw(st.integers(2, 500)),
        "tied": draw(st.booleans()),
        "norm": draw(st.sampled_from(["pre", "peri"])),
    }
    if kind == "moe" or (kind is None and draw(st.booleans())):
        experts = draw(st.sampled_from([4, 6, 8, 12, 16]))
        return ModelShape(kind="moe", experts=experts, top_k=draw(st.integers(1, 4)), **common)
    return ModelShape(gated=draw(st.booleans()), **common)


PERIODS, STEPS, SITES = st.integers(1, 40), st.integers(1, 200), st.integers(1, 9)


def planned(name: str, options: dict[str, Any], shape: ModelShape, sites: int, steps: int) -> int:
    return find(name, options, "test").plan(shape, sites, steps, seed=3).payload_bytes


@given(shapes(), SITES, STEPS, WIRES, st.floats(0.001, 1))
def test_ddp_moves_every_gradient_in_every_step(
    shape: ModelShape, sites: int, steps: int, wire: WireType, bucket: float
) -> None:
    plan = find("ddp", {"wire_dtype": wire, "bucket_mb": bucket}, "test").plan(shape, sites, steps)
    sizes = [t.elements for r in plan.recurrences for t in r.transfers]
    assert sum(sizes) == shape.count()
    assert plan.payload_bytes == steps * 2 * (sites - 1) * sum(wire.bytes_for(size) for size in sizes)


@given(shapes(), SITES, STEPS, PERIODS, WIRES)
def test_diloco_moves_the_model_once_a_round(
    shape: ModelShape, sites: int, steps: int, every: int, wire: WireType
) -> None:
    found = planned("diloco", {"sync_every": every, "wire_dtype": wire}, shape, sites, steps)
    assert found == ceil(steps / every) * 2 * (sites - 1) * wire.bytes_for(shape.count())


@given(shapes(), st.integers(2, 9), STEPS, PERIODS, WIRES, st.sampled_from(["ps", "allreduce", "ring"]), st.booleans())
def test_photon_moves_updates_up_and_models_down(
    shape: ModelShape, sites: int, steps: int, every: int, wire: WireType, aggregation: str, moments: bool
) -> None:
    options: dict[str, Any] = {"sync_every": every, "update_compression": "int8", "wire_dtype": wire}
    options |= {"aggregation": aggregation, "optimizer_state": "sync" if moments else "keep"}
    n = shape.count()
    up, down = WireType.INT8.bytes_for(n), wire.bytes_for(n)
    once = up + down if aggregation == "ps" else 2 * up
    once += 2 * 2 * down if moments else 0
    assert planned("photon", options, shape, sites, steps) == ceil(steps / every) * (sites - 1) * once


@given(shapes(), st.integers(2, 9), st.data(), STEPS, PERIODS)
def test_a_photon_cohort_moves_one_model_each_way(
    shape: ModelShape, sites: int, data: st.DataObject, steps: int, every: int
) -> None:
    """Photon with a cohort moves one model per client and direction."""
    size, server = data.draw(st.integers(1, sites)), data.draw(st.integers(0, sites - 1))
    options = {"sync_every": every, "clients_per_round": size, "server": server}
    method = find("photon", options, "test")
    plan = method.plan(shape, sites, steps, seed=5)
    expected = 0
    for r in method.rounds(sites, steps, 5):  # type: ignore[attr-defined]  # a Photon
        expected += (len(set(r.cohort) - {server}) + len(set(r.after) - {server})) * 4 * shape.count()
        assert len(r.cohort) == size
        assert plan.active(r.first) == plan.active(r.last) == r.cohort
    assert plan.payload_bytes == expected


@given(shapes(), SITES, STEPS, PERIODS, PERIODS, PERIODS, WIRES)
def test_desloc_moves_each_state_at_its_own_period(
    shape: ModelShape, sites: int, steps: int, kx: int, ku: int, kv: int, wire: WireType
) -> None:
    options = {"sync_every": kx, "k_u": ku, "k_v": kv, "wire_dtype": wire}
    times = ceil(steps / kx) + steps // ku + steps // kv
    assert planned("desloc", options, shape, sites, steps) == times * 2 * (sites - 1) * wire.bytes_for(shape.count())


@given(shapes(), SITES, STEPS, PERIODS, st.integers(1, 16), WIRES)
def test_low_rank_ddp_moves_whole_gradients_at_renewals_only(
    shape: ModelShape, sites: int, steps: int, every: int, rank: int, wire: WireType
) -> None:
    """Low rank ddp moves whole gradients only when the basis is renewed."""
    sizes = LowRankSizes.of(shape, LOW_RANK, rank)
    renewals = ceil(steps / every)
    small, whole = wire.bytes_for(sizes.moment + sizes.full), wire.bytes_for(shape.count())
    options = {"refresh_every": every, "rank": rank, "wire_dtype": wire}
    once = 2 * (sites - 1)
    assert planned("lowrank_ddp", options, shape, sites, steps) == once * steps * whole
    projected = {**options, "send": "projected"}
    expected = once * (renewals * whole + (steps - renewals) * small)
    assert planned("lowrank_ddp", projected, shape, sites, steps) == expected


@given(shapes(), SITES, STEPS, PERIODS, PERIODS, st.integers(0, 20), st.integers(1, 16), st.booleans(), st.booleans())
def test_lordo_moves_whole_models_and_low_rank_moments(
    shape: ModelShape, sites: int, steps: int, kx: int, ku: int, warm: int, rank: int, local: bool, sent: bool
) -> None:
    sizes = LowRankSizes.of(shape, LOW_RANK, rank)
    options: dict[str, Any] = {"sync_every": kx, "k_u": ku, "rank": rank, "warmup_steps": warm}
    options |= {"variant": "local" if local else "global", "broadcast_basis": sent}
    left = max(0, steps - warm)
    averaged = sizes.full if local else sizes.moment + sizes.full
    moments = (left // ku + left // kx) * averaged
    numbers = 2 * ((min(warm, steps) + ceil(left / kx)) * shape.count() + moments)
    numbers += ceil(left / kx) * sizes.bases if sent and not local else 0
    assert planned("lordo", options, shape, sites, steps) == numbers * 4 * (sites - 1)


@given(shapes(), SITES, STEPS, PERIODS, st.integers(1, 3), st.integers(0, 5))
def test_streaming_diloco_moves_each_fragment_once_a_period(
    shape: ModelShape, sites: int, steps: int, every: int, layers: int, overlap: int
) -> None:
    """Streaming diloco moves every fragment once a period and all at the end."""
    options = {"sync_every": every, "layers_per_fragment": layers, "overlap": overlap}
    plan = find("streaming_diloco", options, "test").plan(shape, sites, steps)
    once = {t.name: t.elements for t in plan.at(steps)}
    assert sum(once.values()) == shape.count()
    for name in once:
        found = [s for s in plan.sync_steps() if name in {t.name for t in plan.at(s)}]
        regular = [s for s in found if s < steps]
        assert regular == [s for s in range(regular[0], steps - overlap + 1, every) if s < steps] if regular else True
        assert found[0] <= every or found[0] == steps


@settings(max_examples=60)
@given(shapes("moe"), st.integers(1, 8), STEPS, PERIODS, st.data())
def test_fomoe_moves_experts_among_their_holders_only(
    shape: ModelShape, sites: int, steps: int, every: int, data: st.DataObject
) -> None:
    """Eq. 4 to 9 for fixed placement, summed over the sites."""
    fitting = [o for o in range(1, sites + 1) if o * shape.experts % sites == 0]
    replication, routing = data.draw(st.sampled_from(fitting)), data.draw(st.sampled_from(["masked", "skip"]))
    outer, wire = data.draw(st.sampled_from(["diloco", "local_adamw"])), data.draw(st.sampled_from(["fp32", "bf16"]))
    sparse = shape.count(Role.EXPERT) + (shape.count(Role.ROUTER) if routing == "masked" else 0)
    options = {"sync_every": every, "replication": replication, "routing": routing, "outer": outer, "wire_dtype": wire}
    numbers = 2 * (sites - 1) * (shape.count() - sparse) + 2 * (replication - 1) * sparse
    times = ceil(steps / every) * (3 if outer == "local_adamw" else 1)
    assert planned("fomoe", options, shape, sites, steps) == times * numbers * (4 if wire == "fp32" else 2)


@settings(max_examples=40)
@given(shapes("moe"), st.integers(2, 6), st.integers(1, 60), st.integers(1, 7), st.integers(1, 3), st.data())
def test_fomoe_sends_an_expert_to_exactly_those_that_lack_it(
    shape: ModelShape, sites: int, steps: int, every: int, move_every: int, data: st.DataObject
) -> None:
    fitting = [o for o in range(1, sites + 1) if o * shape.experts % sites == 0]
    options = {"replication": data.draw(st.sampled_from(fitting)), "placement": "random", "draws": 3}
    options |= {"sync_every": every, "move_every": move_every, "outer": "diloco"}
    method = find("fomoe", options, "test")
    assert isinstance(method, Fomoe)
    placement = method.placement(shape, sites, 3)
    per_expert = (shape.count(Role.EXPERT, Role.ROUTER)) // shape.layers // shape.experts
    expected = 0
    for draw in range((steps - 1) // (every * move_every)):
        for rank in range(sites):
            before, after = placement.residents(rank, draw), placement.residents(rank, draw + 1)
            expected += sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))
    plan = method.plan(shape, sites, steps, 3)
    moves = [(r.count, t) for r in plan.recurrences for t in r.transfers if t.collective is Collective.BROADCAST]
    assert sum(count * t.payload_bytes for count, t in moves) == expected * 4 * per_expert


CASES: list[tuple[str, dict[str, Any]]] = [
    ("ddp", {"bucket_mb": 0.002}),
    ("diloco", {"sync_every": 3}),
    ("diloco", {"sync_every": 2, "pretrain_steps": 3, "worker_weights": [1, 2, 3, 4], "drop_probability": 0.4}),
    ("photon", {"sync_every": 3, "update_compression": "int8"}),
    ("photon", {"sync_every": 2, "clients_per_round": 2, "drop_probability": 0.4, "optimizer_state": "sync"}),
    ("photon", {"sync_every": 2, "clients_per_round": 1, "aggregation": "ring", "server_optimizer": "fedadam"}),
    ("photon", {"sync_every": 2, "server": 1, "server_optimizer": "nesterov", "server_momentum": 0.5}),
    ("lordo", {"sync_every": 2, "k_u": 3, "k_v": 1}),
    ("lordo", {"sync_every": 2, "variant": "local", "error_feedback": False}),
    ("lordo", {"sync_every": 2, "broadcast_basis": True, "warmup_steps": 2}),
    ("lordo", {"sync_every": 2, "variant": "local", "moments": "keep", "full_rank_term": "feedback"}),
    ("local_adam", {"sync_every": 3}),
    ("desloc", {"sync_every": 2, "k_u": 3, "k_v": 5, "outer_momentum": 0.5}),
    ("lowrank_ddp", {}),
    ("lowrank_ddp", {"term": "feedback"}),
    ("lowrank_ddp", {"send": "projected", "refresh_every": 3, "error_feedback": False}),
    ("streaming_diloco", {"sync_every": 4, "layers_per_fragment": 1}),
    ("streaming_diloco", {"sync_every": 3, "overlap": 2, "pattern": "sequential"}),
    ("sparseloco", {"sync_every": 3, "chunk": 64, "k": 4}),
    ("sparseloco", {"sync_every": 2, "chunk": 100, "k": 9, "bits": 16}),
    ("muloco", {"sync_every": 3, "chunk": 64}),
    ("muloco", {"sync_every": 3, "bits": 4}),
    ("noloco", {"sync_every": 2}),
    ("demo", {"chunk": 32, "k": 3}),
    ("compressed_ddp", {"chunk": 64, "k": 4}),
    ("compressed_ddp", {"codec": "int8", "error_feedback": False}),
    ("compressed_ddp", {"codec": "sign", "chunk": 64}),
    ("powersgd", {"rank": 2}),
    ("async_diloco", {"sync_every": 2}),
    ("eager_diloco", {"sync_every": 2, "layers_per_fragment": 1}),
    ("single", {}),
]
EXPERTS: list[tuple[str, dict[str, Any]]] = [
    ("fomoe", {"sync_every": 3, "replication": r, "outer": outer, "routing": routing, "placement": placement})
    for r, outer, routing, placement in [
        (1, "diloco", "masked", "fixed"),
        (2, "local_adamw", "skip", "fixed"),
        (2, "diloco", "skip", "random"),
        (1, "local_adamw", "masked", "random"),
        (4, "diloco", "masked", "random"),
    ]
] + [("fomoe", {"sync_every": 2, "placement": "random", "outer": "diloco", "outer_momentum_of_moved": "ship"})]


@pytest.mark.parametrize(
    ("name", "options", "shape", "wire"),
    [(n, o, s, w) for n, o in CASES for s, w in ((DENSE, "fp32"), (MOE, "bf16"))]
    + [(n, o, MOE, w) for n, o in EXPERTS for w in ("fp32", "bf16")],
    ids=lambda value: value.kind if isinstance(value, ModelShape) else None,
)
def test_workers_move_and_hold_exactly_what_is_planned(
    name: str, options: dict[str, Any], shape: ModelShape, wire: str
) -> None:
    found = train(name, {**options, "wire_dtype": wire}, shape, sites=4, steps=7, double=False)
    assert found.payload_bytes == found.plan.payload_bytes
    for rank, site in enumerate(found.sites):
        predicted = found.method.memory(shape, 4, rank, 1)
        assert site.memory == predicted
        assert site.worker.memory() == predicted


def test_every_method_is_among_the_cases() -> None:
    assert {name for name, _ in CASES + EXPERTS} == set(names())
