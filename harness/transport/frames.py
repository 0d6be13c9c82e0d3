"""What travels on a WAN connection: one hello each way, then frames.

A frame is a header of `HEADER_SIZE` bytes and a body of `length` bytes. The header carries a CRC-32 of itself, so a
stream that is out of step is noticed at once, and the sum of the body's 64-bit words: TCP's own checksum, at four
times its width, for 1 % of what a CRC of every byte would cost two cores that also train. Headers and hellos are not
payload: the ledger counts bodies only.

The hello names the run (a digest of its token), who calls whom, and which of how many parallel streams this is.
Whoever cannot present the token is disconnected before a single byte of it reaches a collective.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from netsim.errors import PeerError

VERSION = 1
BODY_LIMIT = 1 << 24  # bytes; far above any piece, far below what would exhaust a worker's memory

_HELLO = struct.Struct("<8sHHHHH16s")
_HEADER = struct.Struct("<4sBBHIIQQ")
_CRC = struct.Struct("<I")
HELLO_SIZE = _HELLO.size + _CRC.size
HEADER_SIZE = _HEADER.size + _CRC.size
_HELLO_MAGIC, _MAGIC = b"LONGHAUL", b"LHWN"


class Kind(IntEnum):
    CONTRIBUTION = 1  # a member's own numbers, to the piece's owner
    PARTIAL = 2  # the sum of the members behind, along a ring
    RESULT = 3
    PING = 4  # "are you there, and have you started this transfer?"
    PONG = 5  # `piece` is 1 if started
    GOODBYE = 6  # nothing follows on this stream


@dataclass(frozen=True, slots=True)
class Hello:
    source: int
    target: int
    stream: int
    streams: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """key: which transfer (`transfer_key`); piece: which part of it; length: bytes of body that follow."""

    kind: Kind
    piece: int
    length: int
    key: int
    checksum: int


def token_digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=16, person=b"longhaul wan").digest()


def transfer_key(*facts: object) -> int:
    """64 bits that members agree on exactly if they agree on all `facts` of a transfer."""
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=8).digest(), "little")


def pack_hello(hello: Hello) -> bytes:
    body = _HELLO.pack(_HELLO_MAGIC, VERSION, hello.source, hello.target, hello.stream, hello.streams, hello.digest)
    return body + _CRC.pack(zlib.crc32(body))


def unpack_hello(data: bytes) -> Hello:
    """PeerError if `data` is not a hello of this version."""
    magic, version, source, target, stream, streams, digest = _HELLO.unpack_from(data)
    if magic != _HELLO_MAGIC or _CRC.unpack_from(data, _HELLO.size)[0] != zlib.crc32(data[: _HELLO.size]):
        raise PeerError("not a hello")
    if version != VERSION:
        raise PeerError(f"speaks version {version} of the WAN protocol; this is version {VERSION}")
    return Hello(source, target, stream, streams, digest)


def pack_header(kind: Kind, piece: int, key: int, body: memoryview | None = None) -> bytes:
    length, checksum = (len(body), word_sum(body)) if body is not None else (0, 0)
    head = _HEADER.pack(_MAGIC, kind, 0, 0, piece, length, key, checksum)
    return head + _CRC.pack(zlib.crc32(head))


def unpack_header(data: bytes | bytearray) -> Header:
    """PeerError if `data` is not the header of a frame."""
    magic, kind, _, _, piece, length, key, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC or _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(memoryview(data)[: _HEADER.size]):
        raise PeerError("sent something that is not a frame", corrupt=True)
    if kind not in Kind.__members__.values() or length > BODY_LIMIT:
        raise PeerError(f"sent a frame of kind {kind} with {length} bytes", corrupt=True)
    return Header(Kind(kind), piece, length, key, checksum)


def word_sum(body: memoryview) -> int:
    """The sum of the little-endian 64-bit words of `body` (padded with zeros), modulo 2**64."""
    words = len(body) // 8
    total = int(np.frombuffer(body, "<u8", words).sum(dtype=np.uint64)) if words else 0
    return (total + int.from_bytes(body[8 * words :], "little")) % 2**64
