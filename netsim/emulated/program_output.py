"""Where programs in nodes write: files that the runner opens for them and hands over open. In the runner process."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netsim.errors import HostError

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def logged_to(path: Path, user: int | None) -> Iterator[tuple[int, int, int]]:
    """Standard input, output and error of a program: nothing to read, and `path`, to which both outputs are appended.

    user: that the program runs as, who owns the file from then on; None: this process's own. The program needs no
    right to the folder. Its user may have one, however, and is not trusted: the file must be a regular one, without
    other names, of that user or of ours; no link is followed. Raises HostError.
    """
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        log = _open(path, user)
    except OSError as error:
        os.close(null)
        raise HostError(f"a program's output cannot be written to {path}: {error.strerror or error}") from None
    try:
        yield null, log, log
    finally:
        os.close(null)
        os.close(log)


def _open(path: Path, user: int | None) -> int:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | _SAFE
        log = os.open(path.name, flags, 0o644, dir_fd=folder)
    finally:
        os.close(folder)
    found = os.fstat(log)
    owners = {os.geteuid(), os.geteuid() if user is None else user}
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in owners:
        os.close(log)
        raise OSError("it is not a file of the program's own")
    if user is not None and os.geteuid() == 0 and found.st_uid != user:
        with contextlib.suppress(PermissionError):  # root without that capability: the file stays its own
            os.fchown(log, user, user)
    return log
