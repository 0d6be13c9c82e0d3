"""What strangers say on a run's ports is refused, and the run goes on."""

from __future__ import annotations

import socket
from datetime import timedelta

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._C._distributed_c10d import TCPStore

from harness.transport.frames import HEADER_SIZE, HELLO_SIZE, unpack_header, unpack_hello
from harness.transport.wan_exchange import WanExchange
from netsim.errors import PeerError
from netsim.traffic import Algorithm, Transfer
from tests.fuzz.guided import guided
from tests.threads import together
from tests.wan.members import addresses, close_all, connect_all, free_port

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_any_bytes_are_a_header_or_are_refused(data: bytes) -> None:
    try:
        header = unpack_header(data)
    except PeerError:
        return
    assert header.length >= 0


@QUICK
@given(st.binary(min_size=HELLO_SIZE, max_size=HELLO_SIZE))
def test_any_bytes_are_a_greeting_or_are_refused(data: bytes) -> None:
    guided(lambda: unpack_hello(data), PeerError)


def say(address: str, port: int, message: bytes) -> None:
    """Say it, hear what comes, hang up."""
    try:
        with socket.create_connection((address, port), timeout=2) as sock:
            sock.sendall(message)
            sock.settimeout(0.2)
            sock.recv(1000)
    except OSError:
        return


NOISE = [
    b"",
    b"\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(range(256)) * 40,
    b"\xff" * 5000,
    b'{"id": 1}\n',
    b"\x16\x03\x01" + bytes(100),
]


def test_strangers_do_not_disturb_a_transfer() -> None:
    port = free_port()
    exchanges = connect_all(2, port=port)
    for message in NOISE:
        say(addresses(2)[0], port, message)
    transfer = Transfer("weights", 50_000, (0, 1), algorithm=Algorithm.DIRECT)
    tensors = [torch.ones(50_000) for _ in exchanges]

    def take_part(rank: int) -> None:
        exchanges[rank].run(1, [(transfer, tensors[rank])])

    together(range(2), take_part)
    assert bool((tensors[0] == 2).all())
    close_all(exchanges)
    assert isinstance(exchanges[0], WanExchange)


def test_strangers_do_not_disturb_the_store() -> None:
    """It listens on one address alone, and answers its own after any noise."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    wait = timedelta(seconds=10)
    store = TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=wait, master_listen_fd=listener.detach()
    )
    store.set("before", "1")
    for message in NOISE:
        say("127.0.0.1", port, message)
    other = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=wait)
    other.set("after", "2")
    assert store.get("before") == b"1"
    assert store.get("after") == b"2"
