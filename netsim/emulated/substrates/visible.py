"""What a node sees of the host, on every substrate with a root of its own: system, interpreter, packages, the run."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netsim.library import PACKAGES, ROOT

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
SETTINGS = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/iproute2")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True)
class Visible:
    """One path of the host, under the same path in a node."""

    path: str
    source: str  # the path without links in it
    read_only: bool


def visible(writable: Sequence[Path], read_only: Sequence[Path]) -> list[Visible]:
    """Everything a node may see, parents before what is in them: the host's system, and what the caller names."""
    system = [Path(name) for name in SYSTEM if Path(name).is_dir() and not Path(name).is_symlink()]
    settings = [Path(name) for name in SETTINGS if Path(name).exists()]
    packages = [ROOT / name for name in PACKAGES if (ROOT / name).is_dir()]
    fixed = [*system, *settings, *_interpreter(), *packages, *(path.absolute() for path in read_only)]
    seen = {str(path): True for path in fixed}
    for path in writable:
        seen[str(path.absolute())] = False
    return [Visible(path, str(Path(path).resolve()), kept) for path, kept in sorted(seen.items())]


def system_links() -> dict[str, str]:
    """The links at the top of the host's file system, like /lib -> usr/lib."""
    return {name.lstrip("/"): str(Path(name).readlink()) for name in SYSTEM if Path(name).is_symlink()}


def _interpreter() -> list[Path]:
    """Where Python and its packages are, unless /usr holds them already."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    folders |= {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
    # Folders of packages that a .pth file adds. Not all of sys.path: the working folder would be among it.
    folders |= {Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    kept: list[Path] = []
    for folder in sorted(folders):
        inside = any(folder.is_relative_to(other) for other in [*map(Path, SYSTEM), *kept])
        if not inside and folder.is_dir():
            kept.append(folder)
    return kept
