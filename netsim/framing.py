"""What a TCP payload costs on the wire, and what goodput a line rate can therefore carry.

A shaper counts whole Ethernet frames, a program receives payload: 1448 of 1514 bytes at an MTU of 1500. Comparing
goodput with the line rate would report this 4.4 % as an error of the emulator.
"""

from __future__ import annotations

import math

ETHERNET = 14  # header; preamble, checksum and gap are not counted by the kernel's shapers
IPV4 = 20
TCP = 32  # with timestamps, which Linux sends by default
UDP = 8


def segment(mtu: int) -> int:
    """TCP payload of a full frame, bytes."""
    return mtu - IPV4 - TCP


def datagram(mtu: int) -> int:
    """UDP payload of a full frame, bytes."""
    return mtu - IPV4 - UDP


def goodput(rate: float, mtu: int) -> float:
    """TCP payload per second at a line rate of `rate` bit/s, bit/s."""
    return rate * segment(mtu) / (mtu + ETHERNET)


def frames(payload: int, mtu: int) -> int:
    """Frames that carry `payload` bytes of one TCP stream."""
    return math.ceil(payload / segment(mtu))


def wire_bytes(payload: int, mtu: int) -> int:
    """Bytes that an interface counts for `payload` bytes of one TCP stream in one direction, without its ACKs."""
    return payload + frames(payload, mtu) * (ETHERNET + IPV4 + TCP)


def bandwidth_delay_product(rate: float, rtt: float) -> int:
    """Bytes in flight that fill a path of `rate` bit/s and `rtt` seconds."""
    return math.ceil(rate * rtt / 8)


def burst(rate: float, mtu: int, hz: int = 250) -> int:
    """Token bucket for `rate` bit/s, bytes: what flows in one tick of the kernel, never under two frames.

    A smaller bucket loses rate whenever the timer is late (31 % at 5 Gbit/s with 32 kB); a larger one lets short
    messages pass above the rate.
    """
    return max(math.ceil(rate / 8 / hz), 2 * (mtu + ETHERNET))


def queue_limit(rate: float, rtt: float, mtu: int) -> int:
    """Default queue ahead of a bottleneck, bytes: the bandwidth-delay product, never under 5 ms or 100 full frames."""
    return max(bandwidth_delay_product(rate, max(rtt, 0.005)), 100 * (mtu + ETHERNET))
