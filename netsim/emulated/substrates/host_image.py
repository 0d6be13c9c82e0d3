"""The host image: an empty image, into which this host's system, interpreter and packages are mounted read-only.

It needs no registry and no build, and what runs in the containers is exactly what runs on the host.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound
from docker.types import Mount

from netsim.emulated.substrates.visible import FILES, system_links, visible

NAME = "longhaul-host"


def host_image(client: docker.DockerClient) -> str:
    """The image's name; made on first use."""
    try:
        client.images.get(NAME)
    except ImageNotFound:
        client.api.import_image_from_data(_skeleton(), repository=NAME, tag="latest")
    return NAME


def _skeleton() -> bytes:
    """A tar archive of the few files that every root needs: mount points are made by the engine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, target in system_links().items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return packed.getvalue()


def mounts(writable: Sequence[Path], read_only: Sequence[Path]) -> list[Mount]:
    """Everything a node may see, as binds of the container."""
    return [
        Mount(target=one.path, source=one.source, type="bind", read_only=one.read_only)
        for one in visible(writable, read_only)
    ]
