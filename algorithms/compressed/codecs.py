"""Payload codecs: tensors to bytes and back, with a size that follows from the number of elements alone.

A method encodes what it sends, moves the bytes (wire type `uint8`) by an all-gather or to a neighbour, and decodes what
it receives. `bytes_for` is what the plan counts; `encode` returns exactly so many bytes.

    dense      every number in a wire type (fp32, bf16, fp16, int8, fp4)
    packed     every number in 1 bit (sign) or 2 bits (four levels), with one fp32 scale per chunk
    top_k      of each chunk the k largest magnitudes: indices of ceil(log2 chunk) bits, values in 1 or 2 bits with one
               fp32 scale per chunk, or in bf16 or fp32
    low_rank   the factors of a p x q matrix: (p + q) r numbers in a wire type

Pure functions over tensors; in the trainer process. The sizes need no torch: `algorithms.compressed.payloads`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms import wire as numbers
from algorithms.compressed.payloads import Dense, Packed, Payload, TopK


def encode(payload: Payload, values: Tensor) -> Tensor:
    """`values` (elements,) fp32 -> uint8 (payload.bytes_for(elements),)."""
    flat = values.detach().reshape(-1).float()
    if isinstance(payload, Dense):
        found = numbers.encode(flat, payload.wire)
    elif isinstance(payload, Packed):
        codes, scales = _quantise(_chunked(flat, payload.chunk), payload.bits)
        found = torch.cat([_bytes_of(scales), pack(codes.reshape(-1)[: flat.numel()], payload.bits)])
    else:
        found = _encode_top_k(payload, flat)
    assert found.numel() == payload.bytes_for(flat.numel()), (payload, flat.numel(), found.numel())
    return found


def decode(payload: Payload, encoded: Tensor, elements: int) -> Tensor:
    """uint8 (payload.bytes_for(elements),) -> fp32 (elements,)."""
    if isinstance(payload, Dense):
        return numbers.decode(encoded, payload.wire, elements)
    if isinstance(payload, Packed):
        chunks = -(-elements // payload.chunk)
        scales = _floats_of(encoded[: 4 * chunks])
        codes = unpack(encoded[4 * chunks :], payload.bits, elements)
        return _levels(codes, payload.bits) * scales.repeat_interleave(payload.chunk)[:elements]
    return _decode_top_k(payload, encoded, elements)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Unsigned integers below 2^bits (n,), bits at most 16 -> uint8 (ceil(n bits / 8),), lowest bits first."""
    places = torch.arange(bits)
    found = ((codes.long()[:, None] >> places) & 1).to(torch.uint8).reshape(-1)
    if found.numel() % 8:
        found = torch.cat([found, found.new_zeros(-found.numel() % 8)])
    weights = 2 ** torch.arange(8)
    return (found.view(-1, 8).long() * weights).sum(dim=1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """What `pack` was given: int64 (count,)."""
    found = ((packed.long()[:, None] >> torch.arange(8)) & 1).reshape(-1)[: count * bits].view(count, bits)
    return (found * 2 ** torch.arange(bits)).sum(dim=1)


def _encode_top_k(payload: TopK, flat: Tensor) -> Tensor:
    parts = []
    for start, count, width in payload.regions(flat.numel()):
        chunks = flat[start : start + count * width].view(count, width)
        kept = payload.kept(width)
        places = chunks.abs().topk(kept, dim=1).indices.sort(dim=1).values
        values = chunks.gather(1, places)
        parts.append(pack(places.reshape(-1), payload.index_bits(width)))
        if payload.bits in (1, 2):
            codes, scales = _quantise(values, payload.bits)
            parts += [_bytes_of(scales), pack(codes.reshape(-1), payload.bits)]
        else:
            parts.append(_bytes_of(values.to(torch.bfloat16 if payload.bits == 16 else torch.float32).reshape(-1)))
    return torch.cat(parts) if parts else flat.new_empty(0, dtype=torch.uint8)


def _decode_top_k(payload: TopK, encoded: Tensor, elements: int) -> Tensor:
    found, at = torch.zeros(elements), 0

    def take(count: int) -> Tensor:
        nonlocal at
        at += count
        return encoded[at - count : at]

    for start, count, width in payload.regions(elements):
        kept = payload.kept(width)
        total, index_bits = count * kept, payload.index_bits(width)
        places = unpack(take(-(-total * index_bits // 8)), index_bits, total).view(count, kept)
        if payload.bits in (1, 2):
            scales = _floats_of(take(4 * count))
            codes = unpack(take(-(-total * payload.bits // 8)), payload.bits, total).view(count, kept)
            values = _levels(codes, payload.bits) * scales[:, None]
        else:
            kind = torch.bfloat16 if payload.bits == 16 else torch.float32
            values = take(total * payload.bits // 8).clone().view(kind).float().view(count, kept)
        found[start : start + count * width].view(count, width).scatter_(1, places, values)
    return found


def _quantise(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(n, width) -> codes of `bits` and a scale per row (n,).

    1 bit: the sign, at the mean magnitude. 2 bits: the sign, and whether the magnitude counts as 1/3 or 1 of the
    largest.
    """
    sign = (rows < 0).long()
    if bits == 1:
        return sign, rows.abs().mean(dim=1)
    scales = rows.abs().amax(dim=1)
    large = (rows.abs() > scales[:, None] * (2 / 3)).long()
    return sign | (large << 1), scales


def _levels(codes: Tensor, bits: int) -> Tensor:
    sign = 1.0 - 2.0 * (codes & 1).float()
    return sign if bits == 1 else sign * torch.where((codes >> 1) > 0, 1.0, 1 / 3)


def _chunked(flat: Tensor, width: int) -> Tensor:
    """(elements,) -> (chunks, width). The last chunk is filled up with its own last number: no scale of 2 bits
    changes, and one of 1 bit little."""
    if not flat.numel() % width:
        return flat.view(-1, width)
    missing = -flat.numel() % width
    return torch.cat([flat, flat[-1:].expand(missing)]).view(-1, width)


def _bytes_of(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.uint8).reshape(-1)


def _floats_of(encoded: Tensor) -> Tensor:
    return encoded.clone().view(torch.float32)
