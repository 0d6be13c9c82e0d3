"""Numbers as they travel: encoding of tensors in a wire type, and back.

The quantised types scale each block of `BLOCK` numbers by its largest magnitude. FP4 is E3M0 (sign and a power of two),
as Streaming DiLoCo sends its outer gradients (arXiv 2501.18512, section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from netsim.traffic import BLOCK, WireType

_FLOATS = {
    WireType.FP64: torch.float64,
    WireType.FP32: torch.float32,
    WireType.BF16: torch.bfloat16,
    WireType.FP16: torch.float16,
    WireType.UINT8: torch.uint8,
}
# Magnitudes of E3M0 relative to the block's largest: zero and seven powers of two.
_E3M0 = torch.tensor([0.0, *(2.0**exponent for exponent in range(-6, 1))])


def encode(values: Tensor, wire: WireType) -> Tensor:
    """`values` (elements,) -> uint8 (wire.bytes_for(elements),)."""
    if wire in _FLOATS:
        return values.to(_FLOATS[wire]).contiguous().view(torch.uint8)
    blocks = _blocks(values.float())
    scales = blocks.abs().amax(dim=1, keepdim=True)
    relative = blocks / torch.where(scales > 0, scales, 1)
    if wire is WireType.INT8:
        body = (relative * 127).round().to(torch.int8).view(-1)[: values.numel()].view(torch.uint8)
    else:
        nearest = torch.bucketize(relative.abs(), (_E3M0[1:] + _E3M0[:-1]) / 2).to(torch.uint8)
        codes = (nearest | ((relative < 0).to(torch.uint8) << 3)).view(-1)[: values.numel()]
        if codes.numel() % 2:
            codes = torch.cat([codes, codes.new_zeros(1)])
        body = codes[0::2] | (codes[1::2] << 4)
    return torch.cat([scales.view(-1).view(torch.uint8), body])


def decode(encoded: Tensor, wire: WireType, elements: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (wire.bytes_for(elements),) -> (elements,) of `dtype`."""
    if wire in _FLOATS:
        return encoded.view(_FLOATS[wire]).to(dtype)
    count = -(-elements // BLOCK)
    scales, body = encoded[: 4 * count].clone().view(torch.float32), encoded[4 * count :]
    if wire is WireType.INT8:
        relative = body.view(torch.int8).float() / 127
    else:
        codes = torch.stack([body & 0xF, body >> 4], dim=1).view(-1)[:elements]
        relative = _E3M0[(codes & 0x7).long()] * torch.where(codes >= 8, -1.0, 1.0)
    return (_blocks(relative) * scales[:, None]).view(-1)[:elements].to(dtype)


def _blocks(values: Tensor) -> Tensor:
    """(elements,) -> (blocks, BLOCK), padded with zeros."""
    count = -(-values.numel() // BLOCK)
    padded = values.new_zeros(count * BLOCK)
    padded[: values.numel()] = values
    return padded.view(count, BLOCK)
