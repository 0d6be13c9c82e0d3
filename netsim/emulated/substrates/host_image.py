"""The host image: an empty image, into which this host's system, interpreter and packages are mounted read-only.

It needs no registry and no build, and what runs in the containers is exactly what runs on the host.
"""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound
from docker.types import Mount

from netsim.library import PACKAGES, ROOT

NAME = "longhaul-host"
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
SETTINGS = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/iproute2")


def host_image(client: docker.DockerClient) -> str:
    """The image's name; made on first use."""
    try:
        client.images.get(NAME)
    except ImageNotFound:
        client.api.import_image_from_data(_skeleton(), repository=NAME, tag="latest")
    return NAME


def _skeleton() -> bytes:
    """A tar archive of the few files that every root needs: mount points are made by the engine."""
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name in SYSTEM:
            path = Path(name)
            if path.is_symlink():
                entry = tarfile.TarInfo(name.lstrip("/"))
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                archive.addfile(entry)
    return packed.getvalue()


def mounts(writable: Sequence[Path], read_only: Sequence[Path]) -> list[Mount]:
    """Everything a node may see: this host's system, interpreter and packages, and what the caller names."""
    system = [Path(name) for name in SYSTEM if Path(name).is_dir() and not Path(name).is_symlink()]
    settings = [Path(name) for name in SETTINGS if Path(name).exists()]
    packages = [ROOT / name for name in PACKAGES if (ROOT / name).is_dir()]
    fixed = [*system, *settings, *_interpreter(), *packages, *(path.absolute() for path in read_only)]
    seen = {str(path): True for path in fixed}
    for path in writable:
        seen[str(path.absolute())] = False
    return [
        Mount(target=path, source=str(Path(path).resolve()), type="bind", read_only=kept)
        for path, kept in sorted(seen.items())
    ]


def _interpreter() -> list[Path]:
    """Where Python and its packages are, unless /usr holds them already."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    folders |= {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
    kept: list[Path] = []
    for folder in sorted(folders):
        inside = any(folder.is_relative_to(other) for other in [*map(Path, SYSTEM), *kept])
        if not inside and folder.is_dir():
            kept.append(folder)
    return kept
