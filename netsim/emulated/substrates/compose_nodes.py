"""The compose substrate: sites that compose.yaml brought up, lent to this runner, which needs no container engine.

See `netsim.emulated.substrates.compose_site` for the sites' side.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netsim.emulated.compile import CORE_NODE
from netsim.emulated.plan import Address
from netsim.emulated.substrates.capabilities import Capability, named
from netsim.emulated.substrates.compose_site import MEETING_VARIABLE, SOCKET
from netsim.emulated.substrates.launch import NetworkRequest, program_user
from netsim.errors import HostError, LinkError

_MEET_SECONDS = 30.0
_ANSWER_SECONDS = 20.0
# The variables by which compose.yaml is told the kernel settings of sites.
_SETTINGS = {
    "tcp_rmem": "LONGHAUL_TCP_BUFFER",
    "tcp_wmem": "LONGHAUL_TCP_BUFFER",
}


@dataclass(frozen=True)
class ComposeSite:
    """A site that reported: its name, where it is, what its kernel can do, and the connection that holds it."""

    name: str
    address: Address
    able: Mapping[str, Capability]
    link: socket.socket

    @staticmethod
    def read(line: bytes, link: socket.socket) -> ComposeSite:
        found = json.loads(line)
        wan, mgmt = found["wan"], found["mgmt"]
        address = Address(wan["address"], wan["mac"], mgmt["address"], mgmt["mac"], wan["prefix"], mgmt["prefix"])
        return ComposeSite(found["site"], address, named(found["able"]), link)

    @property
    def gone(self) -> bool:
        """Whether it closed the connection. It never speaks without being asked."""
        return bool(select.select([self.link], [], [], 0)[0])


def seats(wanted: Sequence[str], present: Sequence[str]) -> dict[str, str] | None:
    """Which container plays which site: the one of that name, else one that no site is named after. None: too few.

    The node of shared core links is always played by its own container, which forwards, and plays nothing else.
    """
    free = sorted(set(present) - set(wanted) - {CORE_NODE})
    chosen = {}
    for site in wanted:
        if site in present:
            chosen[site] = site
        elif free and site != CORE_NODE:
            chosen[site] = free.pop(0)
        else:
            return None
    return chosen


class ComposeNodes:
    """Holds the sites of one network."""

    name = "compose"
    pins_sysctls = False

    def __init__(self) -> None:
        self._sites: list[ComposeSite] = []

    def start(self, order: NetworkRequest) -> None:
        """Returns when every site has started its agent; the agents then connect by themselves."""
        wanted = [launch.site for launch in order.nodes]
        with _gathering() as gathering:
            present = gathering.until(lambda names: seats(wanted, names) is not None)
        chosen = seats(wanted, list(present))
        if chosen is None:
            _release(present.values())
            raise HostError(
                f"{len(wanted)} sites are asked ({', '.join(wanted)}), and {len(present)} came to "
                f"{_meeting()} within {_MEET_SECONDS:.0f} s ({', '.join(sorted(present)) or 'none'}); "
                f"{_lacking(wanted, present)}"
            )
        self._sites = [present.pop(chosen[site]) for site in wanted]
        _release(present.values())
        for launch, site in zip(order.nodes, self._sites, strict=True):
            message = {
                "argv": launch.argv(program_user(launch.index)),
                "env": launch.env(order.owner),
                "log": str(launch.log),
                "sysctls": {**order.sysctls, **launch.sysctls},
            }
            with contextlib.suppress(OSError):
                site.link.sendall(json.dumps(message).encode() + b"\n")
        for launch, site in zip(order.nodes, self._sites, strict=True):
            _accepted(launch.site, site)

    def address(self, index: int) -> Address:
        return self._sites[index].address

    def user(self, index: int) -> int | None:
        return program_user(index)

    def alive(self) -> bool:
        return not any(site.gone for site in self._sites)

    def set_realtime(self, index: int, process: int, priority: int) -> None:
        """Nobody here is outside the containers; they have the urgency that they may take by themselves."""

    def facts(self) -> dict[str, Any]:
        return {"containers": [site.name for site in self._sites]}

    def close(self) -> None:
        """Lets the sites go; each ends what it ran and bares its interfaces before it comes again."""
        _release(self._sites)
        self._sites = []


@cache
def capabilities_of_sites() -> Mapping[str, Capability]:
    """What the sites' kernel can do, as the first site that comes has tried."""
    with _gathering() as gathering:
        present = gathering.until(bool)
    _release(present.values())
    if not present:
        raise HostError(f"no site came to {_meeting()} within {_MEET_SECONDS:.0f} s; compose.yaml brings them up")
    return next(iter(present.values())).able


class _Gathering:
    """Where sites report while a runner waits for them."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def until(self, enough: Callable[[list[str]], bool]) -> dict[str, ComposeSite]:
        """The sites that came, by name, as soon as `enough` says so of their names; or after half a minute."""
        present: dict[str, ComposeSite] = {}
        end = time.monotonic() + _MEET_SECONDS
        while not enough(list(present)) and time.monotonic() < end:
            try:
                link, _ = self._listener.accept()
            except TimeoutError:
                continue
            link.settimeout(_ANSWER_SECONDS)
            if line := _line(link):
                site = ComposeSite.read(line, link)
                present[site.name] = site
        return present


@contextmanager
def _gathering() -> Iterator[_Gathering]:
    path = _meeting() / SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)  # trainers, which are nobody, must not pose as a site
        listener.listen(64)
        listener.settimeout(0.2)
        try:
            yield _Gathering(listener)
        finally:
            path.unlink(missing_ok=True)


def _meeting() -> Path:
    folder = os.environ.get(MEETING_VARIABLE)
    if not folder or not Path(folder).is_dir():
        raise HostError(
            f"the compose substrate is for the runner that compose.yaml starts: there, {MEETING_VARIABLE} names the "
            f"directory where the sites report, and here it is {folder!r}"
        )
    return Path(folder)


def _accepted(name: str, site: ComposeSite) -> None:
    line = _line(site.link)
    answer = json.loads(line) if line else {"error": "its container has ended"}
    if answer["error"]:
        raise LinkError(f"site {name}: {answer['error']}{_remedy(answer['error'])}")


def _lacking(wanted: Collection[str], present: Collection[str]) -> str:
    if CORE_NODE in wanted and CORE_NODE not in present:
        return f"shared core links need the container {CORE_NODE}, as compose.yaml has it"
    return "add services to compose.yaml, or let the suite use fewer sites"


def _line(link: socket.socket) -> bytes:
    """What a site said; nothing if it has gone."""
    try:
        return link.makefile("rb").readline()
    except OSError:
        return b""


def _remedy(complaint: str) -> str:
    for setting, variable in _SETTINGS.items():
        if setting in complaint:
            return f"; bring the sites up again with {variable} set to what the topology asks"
    return ""


def _release(sites: Iterable[ComposeSite]) -> None:
    for site in sites:
        with contextlib.suppress(OSError):
            site.link.shutdown(socket.SHUT_RDWR)
        site.link.close()
