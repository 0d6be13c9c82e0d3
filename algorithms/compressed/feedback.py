"""Averages of compressed vectors: error feedback, an all-gather of encoded bytes, and the mean of what they say.

    a = d e + x;    send C(a);    e = a - C(a);    result = mean_m C(a_m)       Karimireddy et al. 2019 for d = 1

Encoded numbers cannot be added on the way, so every worker gathers all payloads: n (n-1) of them in total.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.compressed.codecs import decode, encode
from algorithms.compressed.payloads import Payload
from algorithms.exchange import Exchange
from netsim.traffic import Collective, Transfer, WireType


def gathered(name: str, payload: Payload, elements: int, members: tuple[int, ...]) -> Transfer:
    """The all-gather by which `members` learn each other's payload of `elements` numbers."""
    return Transfer(name, payload.bytes_for(elements), members, WireType.UINT8, Collective.ALL_GATHER)


@torch.no_grad()
def compressed_mean(
    exchange: Exchange,
    step: int,
    transfer: Transfer,
    payload: Payload,
    values: Tensor,
    feedback: Tensor | None = None,
    decay: float = 1.0,
) -> Tensor:
    """The mean (elements,) over the transfer's members of what their payloads of `values` say, the same bits at each.

    feedback: this worker's error (elements,), updated in place; without, what the codec loses is lost.
    """
    signal = values if feedback is None else feedback.mul_(decay).add_(values)
    rows = torch.zeros(len(transfer.members), transfer.elements, dtype=torch.uint8)
    place = transfer.members.index(exchange.rank)
    rows[place] = encode(payload, signal)
    if feedback is not None:
        feedback.sub_(decode(payload, rows[place], values.numel()).to(values.dtype))
    exchange.run(step, [(transfer, rows)])
    total = torch.zeros_like(values)
    for row in rows:
        total.add_(decode(payload, row, values.numel()).to(values.dtype))
    return total.div_(len(rows))
