"""GPUs in nodes: which the host has, which files a container needs for them, and how sites share them.

Nodes that are network namespaces see the host's devices; containers get the files of those that are named. The driver's
libraries are the host's on both, since a container of the host image has the host's /usr. Programs are told by
variables which GPUs are theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from netsim.errors import HostError, InputError

_DEV = Path("/dev")
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_ONE = re.compile(r"nvidia(\d+)")


def host_gpus(dev: Path = _DEV) -> tuple[str, ...]:
    """The numbers of this host's NVIDIA GPUs, ascending."""
    numbers = [int(match[1]) for path in dev.glob("nvidia*") if (match := _ONE.fullmatch(path.name))]
    return tuple(str(number) for number in sorted(numbers))


def chosen_gpus(wanted: str, dev: Path = _DEV) -> tuple[str, ...]:
    """The GPUs that `wanted` means: auto (all that there are), none, or numbers like 0,2.

    Raises InputError for what is no such list, HostError for a GPU that this host has not.
    """
    present = host_gpus(dev)
    if wanted in ("auto", "none"):
        return present if wanted == "auto" else ()
    numbers = tuple(part.strip() for part in wanted.split(","))
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError("--gpus", "", wanted, "auto, none, or numbers like 0,1")
    if missing := [number for number in numbers if number not in present]:
        raise HostError(f"this host has no GPU {', '.join(missing)} (present: {', '.join(present) or 'none'})")
    return numbers


def device_files(gpus: Sequence[str], dev: Path = _DEV) -> list[str]:
    """The device files that a container needs to use `gpus`; none for none."""
    if not gpus:
        return []
    shared = [str(dev / name) for name in _SHARED if (dev / name).exists()]
    return [*(str(dev / f"nvidia{number}") for number in gpus), *shared]


def gpus_of_sites(gpus: Sequence[str], sites: Sequence[str]) -> dict[str, str]:
    """What CUDA_VISIBLE_DEVICES is at each site: its own part of the GPUs, or, where there are fewer than sites, one
    that it shares. Empty strings where there are none."""
    if not gpus:
        return dict.fromkeys(sites, "")
    if len(gpus) < len(sites):
        return {site: gpus[index % len(gpus)] for index, site in enumerate(sites)}
    share = len(gpus) // len(sites)
    return {site: ",".join(gpus[index * share : (index + 1) * share]) for index, site in enumerate(sites)}
