"""The exchange over TCP against the exchange without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from algorithms.exchange import local_group
from harness.transport.wan_exchange import WanExchange
from netsim.traffic import Algorithm, Collective, Transfer, WireType
from tests.threads import together
from tests.wan.members import close_all, connect_all

WORLD = 4
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def exchanges() -> Iterator[list[WanExchange]]:
    made = connect_all(WORLD)
    yield made
    close_all(made)


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    collective = draw(st.sampled_from(list(Collective)))
    pair = {"min_size": 2, "max_size": 2} if collective is Collective.SEND else {"min_size": 1}
    members = tuple(sorted(draw(st.sets(st.integers(0, WORLD - 1), **pair))))
    wires = [wire for wire in WireType if wire is not WireType.UINT8 or not collective.sums]
    elements = draw(st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([70_001, 300_000])))
    return Transfer(
        name="t",
        elements=elements,
        members=members,
        wire=draw(st.sampled_from(wires)),
        collective=collective,
        algorithm=draw(st.sampled_from([Algorithm.DIRECT, Algorithm.PS])),
        root=draw(st.sampled_from(members)),
    )


def tensors_for(transfer: Transfer, dtype: torch.dtype, seed: int) -> dict[int, Tensor]:
    """Each member's numbers: of mixed magnitude, so that the order of addition shows."""
    made = {}
    for rank in transfer.members:
        generator = torch.Generator().manual_seed(1000 * seed + rank)
        count = transfer.rows(rank) * transfer.elements
        if transfer.wire is WireType.UINT8:
            made[rank] = torch.randint(256, (count,), generator=generator, dtype=torch.uint8)
            continue
        values = torch.randn(count, generator=generator)
        made[rank] = (values * 10 ** (4 * torch.rand(values.shape, generator=generator) - 2)).to(dtype)
    return made


step = iter(range(1, 10**9))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transfer=transfers(), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_every_collective_leaves_the_bits_of_the_local_exchange(
    exchanges: list[WanExchange], transfer: Transfer, dtype: torch.dtype, seed: int
) -> None:
    expected, found = tensors_for(transfer, dtype, seed), tensors_for(transfer, dtype, seed)
    local, now = local_group(WORLD), next(step)
    together(transfer.members, lambda rank: local[rank].run(now, [(transfer, expected[rank])]))
    before = sum(exchange.ledger.total for exchange in exchanges)
    together(transfer.members, lambda rank: exchanges[rank].run(now, [(transfer, found[rank])]))
    for rank in transfer.members:
        assert found[rank].view(torch.uint8).tolist() == expected[rank].view(torch.uint8).tolist()
    for rank in transfer.members:
        sent = exchanges[rank].ledger.by_transfer().get((now, "t"), 0)
        assert sent == transfer.sent_by(rank, Algorithm.PS if transfer.root is None else None)
    assert sum(exchange.ledger.total for exchange in exchanges) - before == transfer.payload_bytes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transfer=transfers(), seed=st.integers(0, 99))
def test_a_ring_leaves_the_same_sum_at_every_member(
    exchanges: list[WanExchange], transfer: Transfer, seed: int
) -> None:
    wire = WireType.INT8 if transfer.wire is WireType.UINT8 else transfer.wire
    transfer = replace(transfer, wire=wire, collective=Collective.ALL_REDUCE, algorithm=Algorithm.RING, root=None)
    tensors, now = tensors_for(transfer, torch.float32, seed), next(step)
    exact = torch.stack([tensors[rank].double() for rank in transfer.members]).sum(0)
    scale = torch.stack([tensors[rank].double().abs() for rank in transfer.members]).sum(0)
    together(transfer.members, lambda rank: exchanges[rank].run(now, [(transfer, tensors[rank])]))
    results = [tensors[rank] for rank in transfer.members]
    assert all(torch.equal(results[0], result) for result in results[1:])
    if not transfer.wire.blocked:
        rounding = {WireType.BF16: 2**-8, WireType.FP16: 2**-10}.get(transfer.wire, 2**-22)
        assert bool(((results[0].double() - exact).abs() <= WORLD * rounding * scale + 1e-6).all())
    for rank in transfer.members:
        assert exchanges[rank].ledger.by_transfer().get((now, "t"), 0) == transfer.sent_by(rank)


def _run(exchanges: list[WanExchange], now: int, transfer: Transfer, rows: list[Tensor], rank: int) -> None:
    exchanges[rank].run(now, [(transfer, rows[rank])])


@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.PS])
def test_an_fp4_sum_is_rounded_once(exchanges: list[WanExchange], algorithm: Algorithm) -> None:
    """Contributions and their sum are numbers of E3M0, so one rounding changes nothing; partial sums are none, so a
    rounding at every hop does. The first number is the scale of the block."""
    everyone = tuple(range(WORLD))
    given = torch.tensor([[1, 1 / 32], [1, 1 / 32], [1, 1 / 4], [1, -1 / 4]])
    found = {}
    for by in (algorithm, Algorithm.RING):
        transfer, now = Transfer("t", 2, everyone, WireType.FP4, algorithm=by, root=0), next(step)
        rows = [row.clone() for row in given]
        together(everyone, partial(_run, exchanges, now, transfer, rows))
        found[by] = rows[0].tolist()
    assert found[algorithm] == [4, 1 / 16]
    assert found[Algorithm.RING] == [4, 1 / 8]


def test_many_transfers_run_at_once_in_any_order_of_waiting(exchanges: list[WanExchange]) -> None:
    def many(rank: int) -> list[float]:
        now = 10**9
        work = [
            (Transfer(f"b{index}", 1000 * index, tuple(range(WORLD)), algorithm=algorithm, root=1), rank + 1.0)
            for index in range(12)
            for algorithm in [[Algorithm.DIRECT, Algorithm.RING, Algorithm.PS][index % 3]]
        ]
        tensors = [torch.full((transfer.elements,), value) for transfer, value in work]
        handles = [exchanges[rank].start(now, t, x) for (t, _), x in zip(work, tensors, strict=True)]
        for handle in reversed(handles):
            handle.wait()
        return [value for tensor in tensors for value in sorted(set(tensor.tolist()))]

    assert together(range(WORLD), many) == [[10.0] * 11] * WORLD
