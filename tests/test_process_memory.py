"""What a training process frees at every step stays its own."""

import subprocess
import sys

SCRIPT = """
import ctypes, resource, sys
from harness.worker.process_memory import disable_malloc_trim
if sys.argv[1] == "kept":
    assert disable_malloc_trim()
libc, size = ctypes.CDLL(None), 20 << 20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def step():
    blocks = [libc.malloc(size) for _ in range(4)]
    for block in blocks:
        libc.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (10 * 4 * size))
"""


def share_faulted_in(how: str) -> float:
    """Of what a step allocates, the share that the kernel had to provide again."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_without_trimming_freed_memory_is_not_faulted_in_again() -> None:
    """A process that keeps what it frees does not fault it in again."""
    assert share_faulted_in("kept") < 0.05
    assert share_faulted_in("default") > 0.5
