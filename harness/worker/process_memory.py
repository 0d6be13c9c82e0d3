"""Memory of a training process: the C allocator and Python's collector, neither of which may stop a step.

Every step allocates and frees the same activations and gradients. By default glibc hands what lies at the top of its
heap back to the kernel and faults it in again at the next step: 1000 to 2000 page faults and up to a tenth of a small
model's step, depending on what else the heap holds, so that two runs of the same work differ.
"""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT = 1 << 30


def disable_malloc_trim() -> bool:
    """Let this process keep up to 1 GiB of what it frees. False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


def freeze_gc() -> None:
    """Take what stands now out of the collector's sight: it lives as long as the process. A collection that looks at
    all of torch's objects takes 0.1 s, in the middle of a step or of a transfer.
    """
    gc.collect()
    gc.freeze()
