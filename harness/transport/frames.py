"""What travels on a WAN connection: one hello each way and a confirmation, then frames.

A frame is a header of `HEADER_SIZE` bytes and a body of `length` bytes. The header carries a CRC-32 of itself, so a
stream that is out of step is noticed at once, and the sum of the body's 64-bit words: TCP's own checksum, at four
times its width, for 1 % of what a CRC of every byte would cost two cores that also train. Headers and hellos are not
payload: the ledger counts bodies only.

The hello says who calls whom, and which of how many parallel streams this is. Both sides prove that they know the run's
token without showing it: the caller's hello carries a nonce and an HMAC of all that it says; the answer carries another
nonce and an HMAC that covers the caller's; the caller confirms with an HMAC of the answer's. Whoever cannot is
disconnected before a single byte of it reaches a collective; what was overheard proves nothing on another connection.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from netsim.errors import PeerError
from netsim.traffic import Algorithm, Transfer

VERSION = 2
BODY_LIMIT = 1 << 24  # bytes; far above any piece, far below what would exhaust a worker's memory

NONCE_SIZE = CONFIRMATION_SIZE = 16
_HELLO = struct.Struct("<8sHHHHH16s16s")
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
    nonce: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """key: which transfer (`transfer_key`); piece: which part of it; length: bytes of body that follow."""

    kind: Kind
    piece: int
    length: int
    key: int
    checksum: int


def _proof(token: str, kind: str, *facts: object) -> bytes:
    return hmac.digest(token.encode(), repr((kind, *facts)).encode(), "sha256")[:CONFIRMATION_SIZE]


def make_hello(token: str, source: int, target: int, stream: int, streams: int, answered: bytes = b"") -> Hello:
    """A hello with a fresh nonce. answered: the nonce of the hello that this one answers."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    proof = _proof(token, "hello", source, target, stream, streams, nonce, answered)
    return Hello(source, target, stream, streams, nonce, proof)


def proves(hello: Hello, token: str, answered: bytes = b"") -> bool:
    """Whether who made this hello knows the token, and made it in answer to the nonce `answered`."""
    facts = (hello.source, hello.target, hello.stream, hello.streams, hello.nonce, answered)
    return hmac.compare_digest(hello.proof, _proof(token, "hello", *facts))


def confirmation(token: str, nonce: bytes) -> bytes:
    """What the caller sends to show that it is there now, `CONFIRMATION_SIZE` bytes. nonce: of the answer to it."""
    return _proof(token, "confirmed", nonce)


def transfer_key(step: int, transfer: Transfer, algorithm: Algorithm) -> int:
    """64 bits that members agree on exactly if they agree on all of a transfer.

    The upper 40 bits (`transfer_identity`) name it; members that share only those disagree on its size or the like.
    """
    name = _digest(5, step, transfer.name, transfer.phase, transfer.members)
    return name << 24 | _digest(3, step, transfer, algorithm)


def transfer_identity(key: int) -> int:
    """The part of a key that names the transfer: its step, name, phase and members."""
    return key >> 24


def _digest(size: int, *facts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=size).digest(), "little")


def pack_hello(hello: Hello) -> bytes:
    said = (hello.source, hello.target, hello.stream, hello.streams, hello.nonce, hello.proof)
    body = _HELLO.pack(_HELLO_MAGIC, VERSION, *said)
    return body + _CRC.pack(zlib.crc32(body))


def unpack_hello(data: bytes) -> Hello:
    """PeerError if `data` is not a hello of this version."""
    magic, version, source, target, stream, streams, nonce, proof = _HELLO.unpack_from(data)
    if magic != _HELLO_MAGIC or _CRC.unpack_from(data, _HELLO.size)[0] != zlib.crc32(data[: _HELLO.size]):
        raise PeerError("not a hello")
    if version != VERSION:
        raise PeerError(f"speaks version {version} of the WAN protocol; this is version {VERSION}")
    return Hello(source, target, stream, streams, nonce, proof)


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
