"""What emulated links do under load, and networks of many sites: rows beside those of `link_accuracy`.

Under load: round trips while one TCP connection or a flood fills the link, against what its queue can hold, and small
packets at the full rate of a long link. Many sites: time to bring a network up and check it, how far its links are off,
and the memory of its processes. Runs in the command line's process; rows of the netem engine come from the guest of
tests/qemu (`python -m tests.qemu.accuracy_rows`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from harness.bench.rows import append_host, append_row, hosts_of, stored_rows
from harness.bench.run_processes import owned_processes
from harness.records.environment import fingerprint
from netsim.emulated.gate import SHORT
from netsim.emulated.load_probe import Load, LoadFinding
from netsim.emulated.network import open_network
from netsim.emulated.owner import Owner, scratch
from netsim.errors import LonghaulError
from netsim.framing import goodput
from netsim.topology import Topology, topology_from

LOAD_SECONDS = 4.0
COUNTS = (2, 8, 16, 32, 64)
SITE_RATE, SITE_RTT = "10 Mbit", "50 ms"
# Load, rate, RTT, queue. Small packets go as far as satellites are.
LOADS: tuple[tuple[Load, str, str, str], ...] = (
    ("tcp", "10 Mbit", "50 ms", "60 kB"),
    ("flood", "10 Mbit", "50 ms", "60 kB"),
    ("tcp", "2 Mbit", "20 ms", "15 kB"),
    ("flood", "2 Mbit", "20 ms", "15 kB"),
    ("small", "10 Mbit", "300 ms", "600 kB"),
)
# How many packets a second the engine carries on this host: more and more small ones.
ENVELOPE: tuple[tuple[Load, str, str, str], ...] = tuple(
    ("small", rate, "50 ms", "400 kB") for rate in ("20 Mbit", "40 Mbit", "60 Mbit", "80 Mbit")
)


@dataclass(frozen=True)
class LoadPoint:
    """A link, where it is measured, and what fills it; in the units of topology files."""

    substrate: str
    engine: str
    load: Load
    rate: str
    rtt: str
    queue: str


@dataclass(frozen=True)
class LoadedLink:
    """rtt_ms_most: with a full queue. sent, lost: of small packets, in LOAD_SECONDS."""

    load_point: LoadPoint
    rtt_ms: float
    rtt_ms_worst: float
    rtt_ms_asked: float
    rtt_ms_most: float
    goodput_share: float | None
    sent: int
    lost: int

    @property
    def packets_per_second(self) -> float:
        return self.sent / LOAD_SECONDS

    @property
    def carried(self) -> bool:
        """Whether small packets all arrived, and as much in time as a short check asks for."""
        late = max(1e3 * SHORT.rtt, SHORT.rtt_share * self.rtt_ms_asked)
        return bool(self.sent) and not self.lost and self.rtt_ms <= self.rtt_ms_asked + late


@dataclass(frozen=True)
class SitesPoint:
    """A network of equal sites, each as far from every other."""

    substrate: str
    engine: str
    sites: int
    rate: str
    rtt: str


@dataclass(frozen=True)
class ManySites:
    """open_seconds: until every link is set up; check_seconds: of a short check; memory_mb: of all processes of the
    network, shared pages counted once (PSS). rtt_error_ms, goodput_error: the worst of the links that were probed."""

    sites_point: SitesPoint
    open_seconds: float
    check_seconds: float
    probed: int
    passed: bool
    rtt_error_ms: float
    goodput_error: float
    memory_mb: float
    host_busy_percent: float


def load_topology_of(point: LoadPoint) -> Topology:
    """Two sites; `queue` ahead of the link in both directions."""
    document = {
        "name": "bench",
        "defaults": {"up": point.rate, "down": point.rate, "rtt": point.rtt, "queue": point.queue},
        "transport": {"congestion_control": "reno"},  # which every kernel has, the guest's too
        "sites": {"a": {}, "b": {}},
    }
    return topology_from(document, "bench wan")


def loaded_link(point: LoadPoint, topology: Topology, finding: LoadFinding) -> LoadedLink:
    """The row of a finding. LonghaulError if no echo came back."""
    if not finding.took:
        raise LonghaulError(f"no echo came back over {point}")
    rate, mtu, rtt = topology.rate("a", "b"), topology.transport.mtu, topology.rtt("a", "b")
    small = point.load == "small"
    return LoadedLink(
        load_point=point,
        rtt_ms=1e3 * median(finding.took),
        rtt_ms_worst=1e3 * max(finding.took),
        rtt_ms_asked=1e3 * rtt,
        rtt_ms_most=1e3 * (rtt + topology.queue("a", "b") * 8 / rate),
        goodput_share=finding.rate / goodput(rate, mtu) if point.load == "tcp" else None,
        sent=finding.sent if small else 0,
        lost=finding.sent - finding.seen if small else 0,
    )


def measure_loads(
    substrates: Iterable[str],
    engine: str,
    results: Path | None,
    report: Callable[[str], None],
    loads: Sequence[tuple[Load, str, str, str]] = (*LOADS, *ENVELOPE),
) -> list[LoadedLink]:
    """Every link under load on each substrate; rows of `results` are not measured again."""
    rows = {row.load_point: row for row in stored_loads(results)}
    for point in [LoadPoint(substrate, engine, *load) for substrate in substrates for load in loads]:
        if point not in rows:
            report(f"under load: {point}")
            topology = load_topology_of(point)
            with (
                scratch("bench") as directory,
                open_network(
                    topology, run_id="bench-wan", directory=directory, substrate=point.substrate, engine=engine
                ) as network,
            ):
                rows[point] = loaded_link(point, topology, network.under_load("a", "b", point.load, LOAD_SECONDS))
            _store(rows[point], results)
    return list(rows.values())


def measure_sites(
    substrates: Iterable[str],
    engine: str,
    results: Path | None,
    report: Callable[[str], None],
    counts: Sequence[int] = COUNTS,
) -> list[ManySites]:
    """Networks of many sites on each substrate; rows of `results` are not measured again."""
    rows = {row.sites_point: row for row in stored_sites(results)}
    points = [SitesPoint(s, engine, count, SITE_RATE, SITE_RTT) for s in substrates for count in counts]
    for point in points:
        if point not in rows:
            report(f"many sites: {point}")
            rows[point] = _many_sites(point)
            _store(rows[point], results)
    return list(rows.values())


def _many_sites(point: SitesPoint) -> ManySites:
    document = {
        "name": "bench",
        "defaults": {"up": point.rate, "down": point.rate, "rtt": point.rtt},
        "sites": {f"site-{index}": {} for index in range(point.sites)},
    }
    topology = topology_from(document, "bench wan")
    psutil.cpu_percent()
    began = time.monotonic()
    with (
        scratch("bench") as directory,
        open_network(
            topology, run_id="bench-wan", directory=directory, substrate=point.substrate, engine=point.engine
        ) as network,
    ):
        opened = time.monotonic()
        report = network.check(short=True)
        checked = time.monotonic()
        memory = _memory()
    answered = [link for link in report.links if link.rtt_ms is not None]
    if not answered:
        raise LonghaulError(f"no echo came back over {point}")
    return ManySites(
        sites_point=point,
        open_seconds=opened - began,
        check_seconds=checked - opened,
        probed=len(report.links),
        passed=report.passed,
        rtt_error_ms=max(((link.rtt_ms or 0.0) - link.rtt_ms_expected for link in answered), key=abs),
        goodput_error=max((link.goodput_mbit / link.goodput_mbit_expected - 1 for link in answered), key=abs),
        memory_mb=memory / 1e6,
        host_busy_percent=psutil.cpu_percent(),
    )


def _memory() -> float:
    """Bytes of every process of the network, those in containers too."""
    total = 0.0
    for process in owned_processes(Owner.this()):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def _store(row: LoadedLink | ManySites, results: Path | None) -> None:
    if results is not None:
        append_host(results, fingerprint())
        append_row(results, row)


def stored_loads(results: Path | None) -> list[LoadedLink]:
    """The rows of links under load in a file of results, substrate by substrate."""
    lines = [line for line in stored_rows(results) if "load_point" in line]
    rows = [LoadedLink(**{**line, "load_point": LoadPoint(**line["load_point"])}) for line in lines]
    return sorted(rows, key=lambda row: (row.load_point.substrate, row.load_point.engine))


def stored_sites(results: Path | None) -> list[ManySites]:
    """The rows of networks of many sites in a file of results, substrate by substrate."""
    lines = [line for line in stored_rows(results) if "sites_point" in line]
    rows = [ManySites(**{**line, "sites_point": SitesPoint(**line["sites_point"])}) for line in lines]
    return sorted(rows, key=lambda row: (row.sites_point.substrate, row.sites_point.engine, row.sites_point.sites))


def hosts_of_loads(results: Path | None) -> list[dict[str, Any]]:
    """The hosts of both, but for the rows of a guest, whose time is virtual."""
    return hosts_of(results, lambda row: "point" not in row and row.get("load_point", {}).get("substrate") != "guest")
