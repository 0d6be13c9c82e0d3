"""Outlives a runner that is killed, and removes what only the runner could have removed: networks, a directory.

`python -m netsim.emulated.substrates.docker_watch OWNER DIRECTORY`, a process of its own beside the runner. Containers
end by themselves, as their agents lose the runner; nothing but a request to the engine removes their networks.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from netsim.emulated.owner import VARIABLE, Owner, owner_of
from netsim.library import ROOT


def start_watch(owner: Owner, runtime: Path) -> subprocess.Popen[bytes]:
    """For this process, which is `owner`; to be killed once nothing is left to remove. runtime: the run's sockets."""
    return subprocess.Popen(
        [sys.executable, "-m", "netsim.emulated.substrates.docker_watch", str(owner), str(runtime)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", VARIABLE: str(owner)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is the runner's to deal with
    )


def main() -> None:
    owner, runtime = Owner.parse(sys.argv[1]), Path(sys.argv[2])
    assert owner is not None
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(owner.pid)
        while owner.alive:
            select.select([descriptor], [], [], None)
    # Only now: the engine's library costs more memory than all that is needed for waiting.
    from netsim.emulated.substrates.docker_engine import sweep_containers

    sweep_containers()
    if owner_of(runtime) == owner:
        shutil.rmtree(runtime, ignore_errors=True)


if __name__ == "__main__":
    main()
