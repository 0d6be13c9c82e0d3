"""Codecs: as many bytes as are stated, and what they keep of the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.compressed.codecs import decode, encode, pack, unpack
from algorithms.compressed.payloads import Dense, Packed, Payload, TopK
from netsim.traffic import WireType

DENSE = [Dense(wire) for wire in (WireType.FP32, WireType.BF16, WireType.FP16, WireType.INT8, WireType.FP4)]
PAYLOADS: list[Payload] = [
    *DENSE,
    Packed(1, 64),
    Packed(2, 64),
    *(TopK(64, 8, bits) for bits in (1, 2, 16, 32)),
    TopK(100, 7),
]


def numbers(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from(PAYLOADS), st.integers(1, 700), st.integers(0, 50))
def test_a_codec_makes_as_many_bytes_as_it_states(payload: Payload, count: int, seed: int) -> None:
    encoded = encode(payload, numbers(count, seed))
    assert encoded.dtype == torch.uint8
    assert encoded.numel() == payload.bytes_for(count)
    assert decode(payload, encoded, count).shape == (count,)


@given(st.integers(1, 16), st.lists(st.integers(0, 65535), min_size=1, max_size=60))
def test_packed_integers_come_back(bits: int, values: list[int]) -> None:
    codes = torch.tensor(values) % 2**bits
    packed = pack(codes, bits)
    assert packed.numel() == -(-len(values) * bits // 8)
    assert torch.equal(unpack(packed, bits, len(values)), codes)


def test_top_k_keeps_the_largest_of_each_chunk_and_nothing_else() -> None:
    values = numbers(640)
    found = decode(TopK(64, 8, 32), encode(TopK(64, 8, 32), values), 640).view(10, 64)
    for chunk, kept in zip(values.view(10, 64), found, strict=True):
        places = set(chunk.abs().topk(8).indices.tolist())
        assert set(kept.nonzero().view(-1).tolist()) == places
        assert torch.equal(kept[list(places)], chunk[list(places)])


def test_two_bits_keep_signs_and_the_largest_magnitude() -> None:
    values = numbers(256)
    found = decode(Packed(2, 64), encode(Packed(2, 64), values), 256)
    assert torch.equal(found.sign(), torch.where(values < 0, -1.0, 1.0))
    for chunk, kept in zip(values.view(4, 64), found.view(4, 64), strict=True):
        assert kept.abs().max() == chunk.abs().max()
        assert (kept - chunk).abs().max() <= chunk.abs().max() / 3 + 1e-6


def test_one_bit_is_the_sign_at_the_mean_magnitude() -> None:
    values = numbers(128)
    found = decode(Packed(1, 64), encode(Packed(1, 64), values), 128)
    for chunk, kept in zip(values.view(2, 64), found.view(2, 64), strict=True):
        assert kept.abs().unique().numel() == 1
        assert kept.abs()[0] == pytest.approx(float(chunk.abs().mean()))


def test_zeros_stay_zeros() -> None:
    for payload in PAYLOADS:
        assert not decode(payload, encode(payload, torch.zeros(130)), 130).any()
