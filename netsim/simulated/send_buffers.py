"""What a member has handed to its kernel and the network has not carried yet.

A member goes on when it has its result and the kernel has the rest of what it sends. At the sites that have a narrow
uplink this is early: their kernels still send while they compute the next step, so that their next exchange begins
before that of the others, and the exposed communication of everyone is less than the bytes over the narrow uplink.

How much a kernel holds follows from its rules (Linux, net/ipv4/tcp_input.c): the send buffer grows to so many segments
as the congestion window has, times a factor, each charged with the memory that it takes at worst
(`tcp_sndbuf_expand`); the window, of a sender whose own interface is the limit, grows to twice what is in flight and
no further (`tcp_is_cwnd_limited`). What waits at that interface is in flight, too: two packets of a connection, of two
segments each where rates are low (`tcp_small_queue_check`, `tcp_min_tso_segs`). The kernel looks for room before it
takes a packet, not for the room that the packet needs (`sk_stream_memory_free`), so that it holds more.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import numpy as np

from netsim.framing import segment
from netsim.simulated.fair_rates import Floats, Ints
from netsim.topology import Transport

Owner = TypeVar("Owner")

INITIAL_BUFFER = 1 << 16  # bytes; the nodes' tcp_wmem
_WINDOW_OF_FLIGHT = 2
OWN_QUEUE = 2 * 2  # segments of a connection at its sender's interface
_PACKET = 1 << 16  # bytes, at most
_BUFFER_OF_WINDOW = {"cubic": 2, "reno": 2, "bbr": 3}


def charge(mtu: int) -> int:
    """Bytes that the kernel charges for a segment: headers and bookkeeping, a power of two, and the `sk_buff`."""
    needed = segment(mtu) + 12 + 192 + 320  # with time stamps; MAX_TCP_HEADER; skb_shared_info
    return int(1 << (needed - 1).bit_length()) + 256


def held_bytes(flight: float, transport: Transport, unsent: int) -> float:
    """Bytes that one connection holds beyond the `flight` bytes that are on their way.

    unsent: bytes that may wait for the window.
    """
    window = _WINDOW_OF_FLIGHT * (flight + OWN_QUEUE * segment(transport.mtu))
    grown = _BUFFER_OF_WINDOW[transport.congestion_control] * charge(transport.mtu) / segment(transport.mtu) * window
    return max(0.0, min(max(grown, INITIAL_BUFFER) + _PACKET / 2, transport.buffer, window + unsent) - flight)


class SendBuffers(Generic[Owner]):
    """By pair of ranks: what is handed over at once, and what waits until there is room. Messages are their owner's.

    room: (pairs,) bytes.
    """

    def __init__(self, room: Floats) -> None:
        self._room = room
        self._queued, self._carried = np.zeros((2, len(room)))  # bytes since the beginning
        self._waiting: dict[int, deque[tuple[float, Owner, int]]] = {}

    def put(self, owner: Owner, messages: Ints, pairs: Ints, sizes: Floats) -> Ints:
        """Messages that are ready, in their order; those of them that the kernel takes at once."""
        taken = []
        for message, pair, size in zip(messages.tolist(), pairs.tolist(), sizes.tolist(), strict=True):
            self._queued[pair] += size
            if self._waiting.get(pair) or self._over(pair, self._queued[pair]) > 0:
                self._waiting.setdefault(pair, deque()).append((self._queued[pair], owner, message))
            else:
                taken.append(message)
        return np.array(taken, dtype=np.int64)

    def first_part(self, pair: int, size: float) -> float:
        """Of a message of `size` bytes that leaves now, those after which all that waits behind it is handed over; all
        of them if that is later, or if nothing waits."""
        if not self._waiting.get(pair):
            return size
        over = self._over(pair, self._queued[pair])
        return over if 1 <= over < size - 1 else size

    def carried(self, pair: int, size: float) -> list[tuple[Owner, int]]:
        """The network has carried `size` bytes more: what the kernel takes in consequence."""
        self._carried[pair] += size
        waiting, taken = self._waiting.get(pair), []
        while waiting and self._over(pair, waiting[0][0]) < 1:
            taken.append(waiting.popleft()[1:])
        return taken

    def _over(self, pair: int, end: float) -> float:
        """Bytes still to be carried before what ends at `end` has room."""
        return float(end - self._carried[pair] - self._room[pair])
