"""Runs somebody's script, unmodified, as torchrun's program. In the trainer; by its path: it imports nothing of ours.

gloo's worker threads let go of a collective's tensors after they have told the script that it is done. A tensor of
Python needs the interpreter for that, and where the interpreter ends at that moment torch aborts the process
("terminate called without an active exception", exit code -6): seen in 6 of 84 runs of plain DistributedDataParallel
with two workers on one busy host, without Longhaul. So a script that has ended leaves the threads a moment.
"""

import atexit
import runpy
import sys
import time
from pathlib import Path

GRACE_SECONDS = 0.2


def let_threads_end() -> None:
    """Sleeping leaves the interpreter, and a core, to the other threads."""
    if "torch.distributed" in sys.modules:
        time.sleep(GRACE_SECONDS)


if __name__ == "__main__":
    atexit.register(let_threads_end)  # registered first, so called last
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
