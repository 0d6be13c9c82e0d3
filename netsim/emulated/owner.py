"""Who a run's objects belong to: every process, socket directory, container and network carries it.

A process number alone may be taken by another program later; with its start time it cannot.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LONGHAUL_OWNER"
TOKEN_VARIABLE = "LONGHAUL_TOKEN"  # of the network that an agent belongs to
LABEL = "longhaul.owner"
RUN_LABEL = "longhaul.run"
_LONGEST_TEMPORARY = 30  # bytes; the rest of a control socket's path has up to 76, and the kernel allows 107
_HOST_NUMBERING = 0xEFFFFFFC  # of the first process namespace, in every kernel


@dataclass(frozen=True)
class Owner:
    """The runner's process: boot of the host, number and start time in clock ticks since that boot."""

    boot: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot}.{self.pid}.{self.started}"

    @staticmethod
    def parse(text: str) -> Owner | None:
        parts = text.split(".")
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            return None
        return Owner(parts[0], int(parts[1]), int(parts[2]))

    @staticmethod
    def this() -> Owner:
        own = Owner.of(os.getpid())
        assert own is not None
        return own

    @staticmethod
    def of(pid: int) -> Owner | None:
        """What a process calls itself, also one with a numbering of processes of its own; None if it has ended.

        PermissionError for another user's process.
        """
        started = start_time(pid)
        if started is None:
            return None
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        inside = next(int(line.split()[-1]) for line in status if line.startswith("NSpid:"))
        return Owner(boot(pid), inside, started)

    @property
    def alive(self) -> bool:
        """False also for owners on other hosts' boots: what they left here is nobody's.

        Process numbers of another container mean nothing here: its owners are its own business, and count as alive.
        """
        here = boot()
        if self.boot == here:
            return start_time(self.pid) == self.started
        return self.boot.partition("-")[0] == here.partition("-")[0]


def boot(process: int | str = "self") -> str:
    """Names this boot of this host and, in a container, which numbering of processes `process` has."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    numbering = Path(f"/proc/{process}/ns/pid").stat().st_ino
    return name if numbering == _HOST_NUMBERING else f"{name}-{numbering}"


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`; None if there is none, or if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def runtime_root() -> Path:
    """Where the control sockets of this user's runs are: in TMPDIR, unless its path is too long for a socket's name."""
    temporary = tempfile.gettempdir()
    return Path("/tmp" if len(temporary.encode()) > _LONGEST_TEMPORARY else temporary) / f"longhaul-{os.getuid()}"


def own_runtime_root() -> Path:
    """The same, made if need be. PermissionError where another user made it, or may write in it."""
    root = runtime_root()
    root.mkdir(mode=0o711, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{root} belongs to another user, or others may write in it")
    return root


def make_runtime(run_id: str, owner: Owner) -> Path:
    """A directory for one network's control socket."""
    root = own_runtime_root()
    made = Path(tempfile.mkdtemp(prefix=f"{owner}.", dir=root))
    made.chmod(0o711)
    (made / "run").write_text(run_id)
    return made


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory for the files of a network that leaves no record; `longhaul clean` removes it should we be killed."""
    made = make_runtime(name, Owner.this())
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def owner_of(runtime: Path) -> Owner | None:
    return Owner.parse(".".join(runtime.name.split(".")[:3]))
