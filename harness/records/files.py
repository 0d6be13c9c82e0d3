"""Files in directories of others: read only if they are what they should be, written without following links.

A worker's directory belongs to its trainer, which a run does not trust. So a file there is opened without following a
link and without waiting (a FIFO would), and must be a regular one of an owner that may have written it; what we write
goes to a new file under a random name, made through the descriptor of its directory, and is then renamed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from netsim.errors import InputError

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
MODE = 0o644
MOST_BYTES = 256 * 2**20  # of a file that is read as one document


@contextmanager
def folder_descriptor(folder: Path) -> Iterator[int]:
    """A descriptor of `folder` itself, which may not be a link."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_to_read(path: Path, also: int | None = None) -> IO[bytes]:
    """The regular file at `path`. also: a user who may own it, too.

    Raises FileNotFoundError if there is none, InputError for a link, a FIFO or a device, and for a file that neither
    this process, nor root, nor the owner of its folder owns.
    """
    try:
        with folder_descriptor(path.parent) as folder:
            descriptor = os.open(path.name, os.O_RDONLY | os.O_NONBLOCK | _SAFE, dir_fd=folder)
            owner = os.fstat(folder).st_uid
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise InputError(
                str(path), "", "a link, which might lead anywhere", "a file of the record itself"
            ) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise InputError(str(path), "", "something that is not a file", "a regular file")
    if found.st_uid not in (os.geteuid(), 0, owner, also):
        os.close(descriptor)
        raise InputError(str(path), "", f"a file of user {found.st_uid}", f"one of user {owner}, who owns its folder")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All of a file, as `open_to_read` opens it. Also an InputError: no such file, and more than `most` bytes."""
    try:
        with open_to_read(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > most:
                raise InputError(str(path), "", f"{size} bytes", f"at most {most}")
            return file.read()
    except OSError as error:
        raise InputError(str(path), "", error.strerror, "a readable record") from None


def write_atomically(path: Path, content: bytes | str, owner: int | None = None) -> None:
    """A reader sees the whole file or the one before. An OSError (full disk) leaves nothing behind.

    owner: user and group number of the file; root gives it to the owner of its folder where nothing else is said.
    """
    data = content.encode() if isinstance(content, str) else content
    name = f".{secrets.token_hex(8)}.part"
    with folder_descriptor(path.parent) as folder:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), MODE)
                if os.geteuid() == 0:
                    place = os.fstat(folder)
                    if owner is not None:
                        os.fchown(file.fileno(), owner, owner)
                    elif place.st_uid != 0:
                        with suppress(PermissionError):  # root without that capability: the file stays its own
                            os.fchown(file.fileno(), place.st_uid, place.st_gid)
                os.fsync(file.fileno())
            os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise


def give_folder(path: Path, owner: int | None, mode: int) -> None:
    """Make the folder if there is none; it is of `owner` (None: whoever owns it already) and has `mode` from now on."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    with folder_descriptor(path) as descriptor:
        if owner is not None and owner != os.fstat(descriptor).st_uid:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)


def remove(path: Path) -> None:
    """The file at `path`, or the link itself, if there is one; through its folder, which may not be a link."""
    with suppress(FileNotFoundError), folder_descriptor(path.parent) as folder:
        os.unlink(path.name, dir_fd=folder)
