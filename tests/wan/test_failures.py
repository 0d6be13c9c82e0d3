"""Peers that die, come late, leave, or do not belong: the others are told whom to blame, in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from harness.transport.frames import HEADER_SIZE, HELLO_SIZE, Kind, make_hello, pack_header, pack_hello, transfer_key
from harness.transport.wan_exchange import WanExchange
from netsim.errors import PeerError
from netsim.traffic import Algorithm, Collective, Transfer
from tests.threads import together
from tests.wan.members import addresses, close_all, connect_all, free_port

TIMEOUT = 1.0


def all_reduce(world: int, elements: int = 10_000, **fields: object) -> Transfer:
    fields = {"algorithm": Algorithm.DIRECT, **fields}
    return Transfer("weights", elements, tuple(range(world)), **fields)  # type: ignore[arg-type]  # a test's own


def failures_of(exchanges: list[WanExchange], transfer: Transfer) -> list[PeerError]:
    """What each of `exchanges` meets when it takes part in `transfer`."""

    def attempt(index: int) -> PeerError:
        with pytest.raises(PeerError) as caught:
            exchanges[index].run(1, [(transfer, torch.ones(transfer.elements))])
        return caught.value

    return together(range(len(exchanges)), attempt)


def errors_of(exchanges: list[WanExchange], transfer: Transfer) -> list[str]:
    """What each of `exchanges` is told when it takes part in `transfer`."""
    return [str(error) for error in failures_of(exchanges, transfer)]


def kill(exchange: WanExchange) -> None:
    """What the kernel does for a process that is killed: its connections end without a goodbye."""

    def die() -> None:
        for peer in exchange._peers._peers.values():
            for stream in peer.streams:
                stream.sock.shutdown(socket.SHUT_RDWR)

    exchange._peers.reactor.submit(die)


def say(exchange: WanExchange, peer: int, message: bytes, shut: bool = False) -> None:
    """As a member gone wrong might."""
    exchange.inject_bytes(peer, message, hang_up=shut)


@contextmanager
def frozen(exchange: WanExchange) -> Iterator[None]:
    """The reactor stands still, as in a process that is stopped."""
    release, stands = threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        release.wait()

    exchange._peers.reactor.submit(stand)
    assert stands.wait(5.0)
    yield
    release.set()


def test_a_member_that_never_calls_is_named() -> None:
    port, began = free_port(), time.monotonic()
    with pytest.raises(PeerError, match=r"rank 1 \(127.0.1.2\): did not call"):
        WanExchange.connect(0, 2, addresses(2), port, "run/0", timeout=0.3)
    with pytest.raises(PeerError, match=r"rank 0 \(127.0.1.1\): Connection refused"):
        WanExchange.connect(1, 2, addresses(2), port, "run/0", timeout=0.3)
    assert time.monotonic() - began < 1.5


def test_a_member_that_comes_late_to_the_meeting_is_waited_for() -> None:
    port = free_port()

    def come(rank: int) -> float:
        time.sleep(0.3 * rank)
        with WanExchange.connect(rank, 3, addresses(3), port, "run/0", 2, timeout=5.0) as exchange:
            values = torch.ones(3)
            exchange.run(1, [(all_reduce(3, 3), values)])
            return float(values[0])

    assert together(range(3), come) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.RING])
def test_a_killed_member_is_named_by_the_others_at_once(algorithm: Algorithm) -> None:
    exchanges = connect_all(4, timeout=10.0)
    threading.Timer(0.2, kill, [exchanges[2]]).start()
    began = time.monotonic()
    told = failures_of([exchanges[0], exchanges[1], exchanges[3]], all_reduce(4, algorithm=algorithm))
    assert time.monotonic() - began < 1.0
    assert all("rank 2 (127.0.1.3)" in str(error) for error in told), told
    assert all((error.ranks, error.hung_up) == ((2,), True) for error in told), told
    close_all(exchanges)


@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.RING, Algorithm.PS])
def test_a_stopped_member_is_named_within_the_timeout(algorithm: Algorithm) -> None:
    exchanges = connect_all(4, timeout=TIMEOUT)
    with frozen(exchanges[2]):
        began = time.monotonic()
        told = failures_of([exchanges[0], exchanges[1], exchanges[3]], all_reduce(4, algorithm=algorithm, root=0))
        assert 0.9 * TIMEOUT < time.monotonic() - began < 2 * TIMEOUT
        close_all([exchanges[0], exchanges[1], exchanges[3]])
    assert all("rank 2 (127.0.1.3) did not answer" in str(error) for error in told), told
    assert all((error.ranks, error.hung_up) == ((2,), False) for error in told), told
    exchanges[2].close()


def test_an_absent_member_is_distinguished_from_a_dead_one() -> None:
    """A member that is there but does not come is told apart from a dead one."""
    exchanges = connect_all(3, timeout=TIMEOUT)
    told = failures_of(exchanges[:2], all_reduce(3))
    assert all("rank 2 (127.0.1.3) did not come" in str(error) for error in told), told
    assert "step 1, 'weights'" in str(told[0])
    assert told[0].ranks == ()
    close_all(exchanges)


def test_transfers_of_a_departed_member_fail() -> None:
    """A member that left is missed by what it should have joined."""
    exchanges = connect_all(2)
    exchanges[1].close()
    assert "rank 1 (127.0.1.2) has left" in errors_of(exchanges[:1], all_reduce(2))[0]
    exchanges[0].close()


def test_leaving_right_after_the_result_fails_nobody() -> None:
    for step in range(1, 6):
        exchanges = connect_all(4)
        tensors = [torch.ones(200_000) for _ in exchanges]

        def take_part(
            rank: int, step: int = step, exchanges: list[WanExchange] = exchanges, tensors: list[torch.Tensor] = tensors
        ) -> None:
            exchanges[rank].run(step, [(all_reduce(4, 200_000), tensors[rank])])
            exchanges[rank].close()

        together(range(4), take_part)
        assert all(bool((tensor == 4).all()) for tensor in tensors)


def test_what_a_member_sent_before_it_left_still_counts() -> None:
    exchanges = connect_all(2)
    gift = all_reduce(2, 100_000, collective=Collective.BROADCAST, root=1)
    exchanges[1].run(1, [(gift, torch.full((100_000,), 7.0))])
    exchanges[1].close()
    time.sleep(0.2)
    values = torch.zeros(100_000)
    exchanges[0].run(1, [(gift, values)])
    assert bool((values == 7).all())
    exchanges[0].close()


def test_those_left_connect_anew_and_go_on() -> None:
    port = free_port()
    exchanges = connect_all(4, port=port)
    kill(exchanges[1])
    assert len(errors_of([exchanges[0], exchanges[2], exchanges[3]], all_reduce(4))) == 3
    close_all(exchanges)
    survivors = (0, 2, 3)
    again = connect_all(4, survivors, port=port, token="run/1")
    transfer = Transfer("weights", 1000, survivors, algorithm=Algorithm.DIRECT)
    tensors = [torch.full((1000,), float(rank)) for rank in survivors]
    together(range(3), lambda index: again[index].run(2, [(transfer, tensors[index])]))
    assert [float(tensor[0]) for tensor in tensors] == [5.0, 5.0, 5.0]
    close_all(again)


def test_members_of_another_generation_are_kept_out() -> None:
    port = free_port()

    def come(rank: int) -> str:
        try:
            WanExchange.connect(rank, 2, addresses(2), port, f"run/{rank}", timeout=0.5).close()
        except PeerError as error:
            return str(error)
        return "connected"

    assert "did not call" in together(range(2), come)[0]


def stranger(port: int, message: bytes) -> bytes:
    """What a stranger hears who says `message` to rank 0."""
    with socket.create_connection((addresses(1)[0], port), timeout=2.0) as sock:
        try:
            sock.sendall(message)
            return sock.recv(1000)
        except ConnectionError:
            return b""


def test_a_stranger_on_the_port_is_refused_and_disturbs_nobody() -> None:
    port = free_port()
    noise = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100, pack_hello(make_hello("other", 1, 0, 0, 1))]
    heard: list[bytes] = []
    early = threading.Timer(0.2, lambda: heard.extend(stranger(port, message) for message in noise))

    def come(rank: int) -> WanExchange:
        if rank == 0:
            early.start()
        else:
            time.sleep(0.5)
        return WanExchange.connect(rank, 2, addresses(2), port, "run/0", 2, timeout=5.0)

    exchanges = together(range(2), come)
    early.join()
    heard.extend(stranger(port, message) for message in noise)
    assert heard == [b""] * 6
    values = [torch.ones(100_000), torch.ones(100_000)]
    together(range(2), lambda rank: exchanges[rank].run(1, [(all_reduce(2, 100_000), values[rank])]))
    assert bool((values[0] == 2).all())
    assert exchanges[0].refused == 6
    close_all(exchanges)


def call(own: str, port: int) -> socket.socket:
    """A connection from the address `own` to rank 0, as soon as that listens."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return socket.create_connection((addresses(2)[0], port), 2.0, (own, 0))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_a_hello_that_was_overheard_opens_nothing() -> None:
    """A member's own hello, repeated: it is answered, but nobody else can confirm the answer."""
    port = free_port()
    hello = pack_hello(make_hello("run/0", 1, 0, 0, 1))
    heard: list[bytes] = []

    def come(rank: int) -> WanExchange:
        if rank == 1:
            with call(addresses(2)[1], port) as sock:
                sock.sendall(hello + bytes(16))
                sock.settimeout(2.0)
                while part := sock.recv(1000):
                    heard.append(part)
        return WanExchange.connect(rank, 2, addresses(2), port, "run/0", 1, timeout=5.0)

    exchanges = together(range(2), come)
    assert len(b"".join(heard)) == HELLO_SIZE
    assert exchanges[0].refused == 1
    close_all(exchanges)


def test_a_hello_from_an_address_of_another_rank_is_refused() -> None:
    port = free_port()
    heard: list[bytes] = []

    def come(rank: int) -> WanExchange:
        if rank == 1:
            with call("127.0.3.1", port) as sock:
                sock.sendall(pack_hello(make_hello("run/0", 1, 0, 0, 1)))
                heard.append(sock.recv(1000))
        return WanExchange.connect(rank, 2, addresses(2), port, "run/0", 1, timeout=5.0)

    exchanges = together(range(2), come)
    assert heard == [b""]
    close_all(exchanges)


@pytest.mark.parametrize("late", [0.0, 0.2])
def test_members_that_disagree_on_a_size_learn_it_at_once(late: float) -> None:
    exchanges = connect_all(2)
    began = time.monotonic()

    def attempt(rank: int) -> str:
        time.sleep(late * rank)
        transfer = all_reduce(2, 1000 + rank)
        with pytest.raises(PeerError) as caught:
            exchanges[rank].run(1, [(transfer, torch.ones(transfer.elements))])
        return str(caught.value)

    told = together(range(2), attempt)
    assert time.monotonic() - began < TIMEOUT
    assert "rank 1 (127.0.1.2) has another size" in told[0]
    assert "here: 1000 numbers as fp32, direct (step 1, 'weights')" in told[0]
    assert "here: 1001 numbers" in told[1]
    close_all(exchanges)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"x" * HEADER_SIZE, "sent something that is not a frame"),
        (pack_header(Kind.CONTRIBUTION, 0, 1, memoryview(b"abc"))[:-4] + b"1234", "not a frame"),
        (pack_header(Kind.CONTRIBUTION, 0, 1, memoryview(b"abc")) + b"abd", "does not have its checksum"),
        (pack_header(Kind.CONTRIBUTION, 0, 1, memoryview(b"abc")) + b"ab", "middle of a frame"),
    ],
)
def test_a_malformed_frame_fails_the_senders_transfers(message: bytes, complaint: str) -> None:
    """A malformed frame of a member fails its transfers by name."""
    exchanges = connect_all(3, streams=1)
    say(exchanges[2], 0, message, shut=True)
    told = errors_of(exchanges[:1], all_reduce(3))
    assert complaint in told[0]
    assert "rank 2" in told[0]
    close_all(exchanges)


def test_a_piece_of_the_wrong_size_is_refused() -> None:
    exchanges = connect_all(2)
    transfer = all_reduce(2, 1000)
    frame = pack_header(Kind.CONTRIBUTION, 0, transfer_key(1, transfer, Algorithm.DIRECT), memoryview(b"abc")) + b"abc"
    say(exchanges[1], 0, frame)
    told = errors_of(exchanges[:1], transfer)[0]
    assert "rank 1 (127.0.1.2) sent 3 bytes as CONTRIBUTION 0 of 'weights', which has 2000" in told
    close_all(exchanges)


def test_a_piece_that_came_before_is_refused() -> None:
    """Whether the transfer was started before or after it; the other member's half never comes, so it cannot end."""
    exchanges = connect_all(2)
    transfer = all_reduce(2, 4)
    body = memoryview(bytes(8))
    frame = pack_header(Kind.CONTRIBUTION, 0, transfer_key(1, transfer, Algorithm.DIRECT), body) + bytes(body)
    say(exchanges[1], 0, frame + frame)
    assert "uncalled for" in errors_of(exchanges[:1], transfer)[0]
    close_all(exchanges)


def test_closing_ends_the_waits_of_other_threads() -> None:
    exchanges = connect_all(2)
    handle = exchanges[0].start(1, all_reduce(2), torch.ones(10_000))
    threading.Timer(0.2, exchanges[0].close).start()
    with pytest.raises(PeerError, match="closed"):
        handle.wait()
    with pytest.raises(PeerError, match="closed"):
        exchanges[0].start(2, all_reduce(2), torch.ones(10_000)).wait()
    exchanges[1].close()


def test_slow_is_not_dead_while_bytes_move() -> None:
    """A transfer may take many timeouts: here the receiver reads a little at a time."""
    exchanges = connect_all(2, timeout=0.5, streams=1)
    transfer = all_reduce(2, 2_000_000, collective=Collective.BROADCAST, root=0)
    stream = exchanges[1]._peers._peers[0].streams[0]
    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    receive = stream.receive

    def slowly() -> None:
        time.sleep(0.02)
        receive()

    stream.receive = slowly  # type: ignore[method-assign]  # a slow receiver, by the one seam there is
    began = time.monotonic()
    together(range(2), lambda rank: exchanges[rank].run(1, [(transfer, torch.ones(2_000_000))]))
    assert time.monotonic() - began > 1.0
    close_all(exchanges)
