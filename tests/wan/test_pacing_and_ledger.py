"""When transfers may begin, what happens to bytes that come early, and what is written down."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
import torch

from harness.transport import wan_exchange as exchange_module
from harness.transport.collective_state import pieces_of
from harness.transport.ledger import Ledger
from harness.transport.peers import soon_enough
from netsim.errors import HostError
from netsim.traffic import BLOCK, Algorithm, Collective, Transfer, WireType
from tests.threads import together
from tests.wan.members import addresses, close_all, connect_all, free_port

PAIR = Transfer("t", 1000, (0, 1), algorithm=Algorithm.DIRECT)


def test_nothing_leaves_before_its_time() -> None:
    exchanges = connect_all(2)
    due = time.monotonic() + 0.4
    exchanges[0].ready_at = lambda transfer: due
    handle = exchanges[0].start(1, PAIR, torch.ones(1000))
    other = exchanges[1].start(1, PAIR, torch.ones(1000), not_before=due)
    time.sleep(0.2)
    assert exchanges[0].ledger.total == exchanges[1].ledger.total == 0
    handle.wait()
    other.wait()
    assert time.monotonic() >= due
    assert exchanges[0].ledger.entries[0].started == due
    assert 0.1 < exchanges[0].waited_seconds < 0.4
    close_all(exchanges)


def test_waiting_for_the_paced_clock_is_not_being_late() -> None:
    exchanges = connect_all(2, timeout=0.3)
    due = time.monotonic() + 1.0
    handles = [exchange.start(1, PAIR, torch.ones(1000), not_before=due) for exchange in exchanges]
    for handle in handles:
        handle.wait()
    close_all(exchanges)


@pytest.mark.parametrize("limit", [10**9, 100_000])
def test_what_comes_before_it_is_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Also when it exceeds what may be kept: then TCP holds the rest back."""
    monkeypatch.setattr(exchange_module, "EARLY_LIMIT", limit)
    exchanges = connect_all(3)
    transfers = [Transfer(f"t{i}", 300_000, (0, 1, 2), algorithm=Algorithm.DIRECT) for i in range(3)]

    def take_part(rank: int) -> list[float]:
        if rank == 2:
            time.sleep(0.5)
        tensors = [torch.full((300_000,), float(rank)) for _ in transfers]
        exchanges[rank].run(1, list(zip(transfers, tensors, strict=True)))
        return [float(tensor.unique()) for tensor in tensors]  # type: ignore[no-untyped-call]  # torch's own lack

    assert together(range(3), take_part) == [[3.0] * 3] * 3
    close_all(exchanges)


def test_the_ledger_has_a_line_per_transfer_cold_or_warm() -> None:
    """The ledger writes a line per transfer and tells cold from warm."""
    streams = [io.StringIO() for _ in range(2)]
    port = free_port()
    exchanges = together(
        range(2),
        lambda rank: exchange_module.WanExchange.connect(
            rank, 2, addresses(2), port, "run/0", timeout=5.0, ledger=streams[rank]
        ),
    )
    steps = [(1, PAIR), (2, Transfer("u", 10, (0, 1), collective=Collective.BROADCAST, root=1))]
    for step, transfer in steps:
        together(
            range(2),
            lambda rank, step=step, t=transfer: exchanges[rank].run(step, [(t, torch.ones(t.elements))]),  # type: ignore[misc]  # mypy does not infer a lambda with a default
        )
    lines = [[json.loads(line) for line in stream.getvalue().splitlines()] for stream in streams]
    kept = ("step", "transfer", "algorithm", "payload_bytes", "cold")
    assert [[line[key] for key in kept] for line in lines[0]] == [
        [1, "t", "direct", 4000, True],
        [2, "u", "ps", 0, False],
    ]
    assert [line["payload_bytes"] for line in lines[1]] == [4000, 40]
    assert exchanges[0].ledger.header_bytes > 0
    close_all(exchanges)


def test_a_ledger_on_a_full_disk_ends_the_transfer() -> None:
    """It is no peer's fault, and nobody waits for what was lost with it."""
    exchanges = connect_all(2)
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  # its end fails, too
    exchanges[0].ledger = Ledger(full)
    handles = [exchange.start(1, PAIR, torch.ones(1000)) for exchange in exchanges]
    with pytest.raises(HostError, match="the ledger cannot be written: No space left on device"):
        handles[0].wait()
    handles[1].wait()
    close_all(exchanges)
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_those_who_do_not_take_part_are_not_needed() -> None:
    exchanges = connect_all(4)
    cohort = Transfer("t", 5000, (1, 3), algorithm=Algorithm.RING)
    tensors = {rank: torch.full((5000,), float(rank)) for rank in cohort.members}
    together(cohort.members, lambda rank: exchanges[rank].run(1, [(cohort, tensors[rank])]))
    assert float(tensors[1][0]) == 4.0
    assert exchanges[0].ledger.total == 0
    close_all(exchanges)


@pytest.mark.parametrize("wire", [WireType.FP32, WireType.INT8])
@pytest.mark.parametrize("elements", [1, 20_000, 74_000, 3_000_001])
def test_pieces_are_as_equal_as_blocks_allow(wire: WireType, elements: int) -> None:
    pieces = pieces_of(Transfer("x", elements, (0, 1, 2, 3), wire=wire), Algorithm.DIRECT)
    assert sum(piece.end - piece.start for piece in pieces) == elements
    sizes = [piece.end - piece.start for piece in pieces if piece.place == 0]
    assert max(sizes) - min(sizes) <= BLOCK * len(sizes)


@pytest.mark.parametrize(
    ("paces", "frames", "suited"),
    [
        ([(0, 1e6)] * 2, 64, [0, 1]),  # much is left for both
        ([(0, 1e6), (0, 1e5)], 2, [0]),  # the other one would be late
        ([(0, 1e6), (0, 2e6), (0, 1e6)], 1, [1]),  # a frame is not cut: the widest window
        ([(300_000, 2e6), (0, 1e6), (0, 9e5)], 1, [1]),  # so much waits on the widest that an idle one is sooner
        ([(0, 5e5 + rank) for rank in range(11)], 2, [9, 10]),  # as many as there are frames
        ([(0, 1e6), (0, 1e6), (0, 6e5)], 3, [0, 1, 2]),  # each is sooner than another one with two
        ([(0, 1e6), (0, 1e6), (0, 4e5)], 4, [0, 1]),
    ],
)
def test_a_frame_takes_a_stream_that_is_soon_enough(
    paces: list[tuple[int, float]], frames: int, suited: list[int]
) -> None:
    assert soon_enough(paces, [64 << 10] * frames) == suited


def test_parallel_streams_carry_one_transfer() -> None:
    exchanges = connect_all(2, streams=5)
    big = Transfer("big", 3_000_001, (0, 1), algorithm=Algorithm.DIRECT)
    values = [torch.arange(big.elements, dtype=torch.float32) for _ in exchanges]
    together(range(2), lambda rank: exchanges[rank].run(1, [(big, values[rank])]))
    assert torch.equal(values[0], 2 * torch.arange(big.elements, dtype=torch.float32))
    used = [stream.sock for peer in exchanges[0]._peers._peers.values() for stream in peer.streams]
    assert len(used) == 5
    close_all(exchanges)
