"""Memory for the bodies of frames: tensors seen as bytes, and scratch that is used again, so that a warm exchange
allocates next to nothing."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

KEPT = 64 * 10**6  # bytes of free scratch; a pipeline holds a few pieces per peer


class Body:
    """The body of a frame, twice: `data`, uint8 (bytes,), for torch, and `memory`, the same memory for sockets.

    scratch: whether the memory came from a pool; otherwise it is a tensor of the transfer, received in place.
    """

    __slots__ = ("data", "memory", "scratch")

    def __init__(self, data: Tensor, scratch: bool = False) -> None:
        self.data = data
        self.memory = data.numpy().data
        self.scratch = scratch


def body_of(tensor: Tensor) -> Body:
    """The memory of a contiguous tensor."""
    return Body(tensor.view(torch.uint8))


class Pool:
    """Scratch buffers, kept by size."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Tensor]] = defaultdict(list)
        self._kept = 0

    def take(self, size: int) -> Body:
        if free := self._free[size]:
            self._kept -= size
            return Body(free.pop(), scratch=True)
        return Body(torch.empty(size, dtype=torch.uint8), scratch=True)

    def give(self, body: Body) -> None:
        """Take back a buffer that nobody reads any more; memory that is not scratch stays whose it is."""
        size = body.data.numel()
        if body.scratch and self._kept + size <= KEPT:
            body.scratch = False
            self._kept += size
            self._free[size].append(body.data)
