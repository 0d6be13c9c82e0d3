"""Networks that a holder keeps open, from outside: open one, list them, run programs in them, change and end them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsim.emulated.held.holder import DESCRIPTION, SOCKET
from netsim.emulated.held.messages import Lines, Message, checked, send
from netsim.emulated.owner import Owner, owner_of, runtime_root
from netsim.emulated.traffic_counts import TrafficCounts
from netsim.errors import InputError, LinkError
from netsim.library import ROOT
from netsim.topology import read_topology, topology_from

DOWN_SECONDS = 60.0  # for a holder to take its network down


@dataclass(frozen=True)
class HeldSite:
    """A node: its site, its addresses, and the user number that programs run as (None: the caller's own)."""

    site: str
    wan: str
    mgmt: str
    user: int | None


@dataclass(frozen=True)
class HeldNetwork:
    """A network that is open. opened, until: seconds since the epoch. holder: the process that keeps it."""

    name: str
    topology: str
    substrate: str
    engine: str
    reason: str
    sites: tuple[HeldSite, ...]
    opened: float
    until: float
    holder: int
    directory: Path
    visible: tuple[Path, ...]  # folders of this host that its programs see, where they do not see all

    @staticmethod
    def read(data: Mapping[str, Any]) -> HeldNetwork:
        known = {name: data[name] for name in HeldNetwork.__dataclass_fields__}
        sites = tuple(HeldSite(**site) for site in data["sites"])
        visible = tuple(Path(path) for path in data["visible"])
        return HeldNetwork(**{**known, "sites": sites, "directory": Path(data["directory"]), "visible": visible})

    def site(self, name: str) -> HeldSite:
        """Raises InputError for a name that is none of its sites'."""
        found = next((site for site in self.sites if site.site == name), None)
        if found is None:
            raise InputError.unknown(f"network {self.name}", "site", name, [site.site for site in self.sites])
        return found

    def execute(
        self,
        site: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        descriptors: tuple[int, int, int] = (0, 1, 2),
        *,
        directory: Path | None = None,
        terminal: bool = False,
    ) -> int:
        """Runs a program at a site to its end; its exit code, or minus the signal that ended it.

        descriptors: its standard input, output and error. An interrupt is passed on to it; when the caller goes away,
        it is ended.
        """
        request = {
            "do": "exec",
            "site": self.site(site).site,
            "argv": list(argv),
            "env": dict(env),
            "directory": str(directory) if directory else "",
            "terminal": terminal,
        }
        return self._follow(request, descriptors)

    def capture(self, site: str, output: int, kept: int = 65535) -> int:
        """Writes what passes wan0 of a site to the open file `output` in pcap form, until interrupted."""
        return self._follow({"do": "capture", "site": self.site(site).site, "kept": kept}, (output,))

    def change(self, *changes: Mapping[str, Any]) -> None:
        """As `Network.change`."""
        self._ask({"do": "set", "changes": [dict(change) for change in changes]})

    def traffic(self) -> TrafficCounts:
        """As `Network.traffic`."""
        return TrafficCounts.from_json(self._ask({"do": "traffic"}))

    def verify(self) -> None:
        """As `Network.verify`: raises LinkError if the links are not as they were set up."""
        self._ask({"do": "verify"})

    def check(self, short: bool) -> dict[str, Any]:
        """As `Network.check`: the link report's JSON document."""
        return self._ask({"do": "check", "short": short})

    def end(self) -> None:
        """Takes it down; returns when nothing of it is left. Raises LinkError if that takes too long."""
        owner = owner_of(self.directory)
        with contextlib.suppress(LinkError):  # it may be ending by itself
            self._ask({"do": "down"})
        end = time.monotonic() + DOWN_SECONDS
        while owner is not None and owner.alive:
            if time.monotonic() > end:
                raise LinkError(f"process {self.holder}, which holds network {self.name}, has not ended")
            time.sleep(0.02)

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.connect(str(self.directory / SOCKET))
            except OSError:
                raise LinkError(f"network {self.name} is open no longer") from None
            yield link

    def _ask(self, request: Message) -> Message:
        with self._connected() as link:
            try:
                send(link, request)
                return checked(Lines(link).next())
            except OSError:
                raise LinkError(f"network {self.name} has ended meanwhile") from None

    def _follow(self, request: Message, descriptors: Sequence[int]) -> int:
        with self._connected() as link:
            send(link, request, descriptors)
            lines = Lines(link)
            checked(lines.next())
            try:
                answer = checked(lines.next())
            except KeyboardInterrupt:
                send(link, {"signal": int(signal.SIGINT)})
                link.settimeout(5.0)
                with contextlib.suppress(OSError, LinkError):
                    checked(lines.next())
                raise
        return int(answer["status"])


def hold(
    topology: Path,
    *,
    name: str = "",
    seconds: float = 3600.0,
    substrate: str = "auto",
    engine: str = "auto",
    seed: int = 0,
    read_only: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    play: bool = False,
    gpus: Sequence[str] = (),
) -> HeldNetwork:
    """Opens the network in a file, held by a process of its own for `seconds`.

    name: what others call it, by default the topology's. read_only, writable: folders that programs in containers see.
    play: whether its timeline is played from now on. Raises what `open_network` raises, and InputError for a name that
    is taken.
    """
    document = read_topology(topology)
    loaded = topology_from(document, str(topology))
    name = name or loaded.name
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError("--name", "", name, "letters, digits, hyphens and underscores")
    if name in (taken := [network.name for network in held_networks()]):
        raise InputError("--name", "", name, f"a name that no open network has (open: {', '.join(taken)})")
    order = {
        "name": name,
        "topology": document,
        "where": str(topology),
        "seconds": seconds,
        "substrate": substrate,
        "engine": engine,
        "seed": seed,
        "read_only": [str(path.absolute()) for path in read_only],
        "writable": [str(path.absolute()) for path in writable],
        "play": play,
        "gpus": list(gpus),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "netsim.emulated.held.holder"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        try:
            line = process.stdout.readline()
            answer = checked(json.loads(line) if line else None)
        except BaseException:
            process.terminate()
            process.wait(DOWN_SECONDS)
            raise
    process.returncode = 0  # it stays, and is nobody's to wait for
    return HeldNetwork.read(answer)


def held_networks() -> list[HeldNetwork]:
    """Those of this user that are open, by name."""
    found = []
    root = runtime_root()
    for path in root.glob(f"*/{DESCRIPTION}") if root.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(path.read_text())
            owner = Owner.parse(str(data["owner"]))
            if owner is not None and owner.alive and owner == owner_of(path.parent):
                found.append(HeldNetwork.read(data))
    return sorted(found, key=lambda network: network.name)


def find_held(name: str = "") -> HeldNetwork:
    """The open network of that name; without one, the only network that is open. Raises InputError."""
    networks = held_networks()
    if not name and len(networks) == 1:
        return networks[0]
    names = [network.name for network in networks]
    if name:
        found = next((network for network in networks if network.name == name), None)
        if found is None:
            raise InputError.unknown("--name", "", name, names, "an open network:")
        return found
    listed = f"one of: {', '.join(names)}" if names else "an open network; `longhaul wan up TOPOLOGY` opens one"
    raise InputError("--name", "", "no name" if names else "no open network", listed)
