"""What a worker computes on: the CPU, or a GPU whose tensors pass through the host's memory to and from the network.

The exchange reads and writes memory of the CPU. On a GPU each transfer gets a page-locked copy there: it leaves from
the copy, and the result returns to the GPU when somebody waits for it. In the trainer process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.exchange import Exchange, Handle
from harness.spec.compute import DeviceName
from netsim.errors import HostError
from netsim.traffic import Transfer

CPU = torch.device("cpu")


def find_device(asked: DeviceName) -> torch.device:
    """auto: a GPU if torch finds one, else the CPU. HostError for `cuda` without a GPU.

    Which GPU a site's programs see is decided by CUDA_VISIBLE_DEVICES, so it is always the first.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        built = "built for CUDA" if torch.version.cuda else "built without CUDA"
        raise HostError(
            f"compute.device: cuda, but torch {torch.__version__}, {built}, finds no GPU here; allowed: cpu, or auto, "
            "which takes a GPU where there is one"
        )
    return torch.device("cuda", 0)


def peak_bytes(device: torch.device) -> int:
    """The most memory of the GPU that this process's tensors have taken; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


class StagedExchange:
    """An exchange for tensors of a GPU.   pinned: whether the copies are page-locked, which needs a GPU."""

    def __init__(self, exchange: Exchange, pinned: bool = True) -> None:
        self.rank, self.world = exchange.rank, exchange.world
        self._exchange, self._pinned = exchange, pinned

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        """As `Exchange.start`; the tensor holds the result once the handle has been waited for."""
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
        copy.copy_(tensor.detach())
        return _StagedHandle(self._exchange.start(step, transfer, copy), copy, tensor)

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        """Start all, then wait for all."""
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()


class _StagedHandle:
    def __init__(self, handle: Handle, copy: Tensor, tensor: Tensor) -> None:
        self._handle, self._copy, self._tensor = handle, copy, tensor
        self._returned = False

    def wait(self) -> None:
        self._handle.wait()
        if not self._returned:
            with torch.no_grad():
                self._tensor.detach().copy_(self._copy)
            self._returned = True
