"""The WAN all-reduce against the alpha-beta bound, beside plain gloo. Runs in the command line's process.

For each network of the grid: bring it up, check its links, then all-reduce the same payload by our exchange and by
gloo, on new connections each. The first, cold one (TCP's windows are closed) is reported beside the median of those
that follow. Where transfers are short, all of it is done on several networks, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from harness.bench.all_reduce_round import one_round, processor_seconds, slowest
from harness.bench.all_reduce_worker import Case
from harness.bench.load import busy_cores
from harness.bench.rows import append_host, append_row, rows_by_host, stored_rows
from harness.bench.torch_group import GLOO
from harness.records.environment import fingerprint
from netsim.collectives import bound, floor, select_algorithm, streams_per_pair
from netsim.framing import bandwidth_delay_product, segment
from netsim.links import INITIAL_WINDOW
from netsim.topology import Topology, topology_from
from netsim.traffic import Transfer

TARGET_PERCENT = 90.0
RATES = {4: ("10 Mbit", "100 Mbit", "1 Gbit"), 8: ("50 Mbit", "100 Mbit", "250 Mbit")}
RTTS = ("10 ms", "50 ms", "200 ms")
TURN_SECONDS = 8.0  # of warm all-reduces on each side, per network
FEWEST, MOST = 1, 12
SHORT_SECONDS, ROUNDS = 1.0, 3  # networks for one point: how connections open decides over short transfers


def measure_all_reduces(
    topologies: Sequence[Topology],
    elements: int,
    *,
    loads: Sequence[bool],
    substrate: str,
    engine: str,
    results: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[AllReduceTimes]:
    """All rows of `results` and of `topologies`, sorted. An all-reduce has `elements` fp32 numbers.

    `results`: JSON lines to continue from and to append to. `report` receives one line before each measurement.
    """
    rows = {row.point: row for row in stored_all_reduces(results)}
    for loaded in loads:
        points = {_point(topology, elements, substrate, loaded): topology for topology in topologies}
        left = [point for point in points if point not in rows]
        with busy_cores() if loaded and left else nullcontext():
            for number, point in enumerate(left, 1):
                report(f"{number}/{len(left)}  {point}")
                rows[point] = _measure(point, points[point], engine)
                if results is not None:
                    append_host(results, fingerprint())
                    append_row(results, rows[point])
    return _in_order(rows.values())


def stored_all_reduces(results: Path | None) -> list[AllReduceTimes]:
    """The rows in a file of results, sorted; none if there is no file."""
    return _in_order(AllReduceTimes(**line) for line in stored_rows(results) if "algorithm" in line)


def _in_order(rows: Iterable[AllReduceTimes]) -> list[AllReduceTimes]:
    return sorted(rows, key=lambda row: astuple(row.point))


def hosts_of_rows(results: Path | None) -> dict[str, dict[str, Any]]:
    """Where the rows in a file of results were measured, by their names; the host of most rows has "other rows"."""
    found = [(host, lines) for host, lines in rows_by_host(results, lambda line: "algorithm" in line) if host]
    most = max((lines for _, lines in found), key=len, default=[])
    return {
        "other rows" if lines is most else "; ".join(str(AllReduceTimes(**line).point) for line in lines): host
        for host, lines in found
    }


def _point(topology: Topology, elements: int, substrate: str, loaded: bool) -> AllReducePoint:
    first, second = topology.sites[:2]
    rtt = 1e3 * topology.rtt(first.name, second.name)
    return AllReducePoint(substrate, loaded, len(topology.sites), first.up / 1e6, rtt, 4 * elements)


def star(sites: int, rate: str, rtt: str) -> Topology:
    """`sites` sites with equal access links, each as far from every other."""
    return topology_from(star_document(sites, rate, rtt), "bench collectives")


def star_document(sites: int, rate: str, rtt: str) -> dict[str, Any]:
    """The topology document of `star`."""
    return {
        "name": "bench",
        "description": f"{sites} sites, {rate}/s, {rtt} RTT",
        "defaults": {"up": rate, "down": rate, "rtt": rtt},
        "sites": {f"site-{index}": {} for index in range(sites)},
    }


def warm_repeats(limit: float) -> int:
    """How many all-reduces with a bound of `limit` seconds follow the first; windows grow over them."""
    return max(FEWEST, min(MOST, int(TURN_SECONDS / limit)))


def _measure(point: AllReducePoint, topology: Topology, engine: str) -> AllReduceTimes:
    """One network of the grid."""
    elements = point.payload_bytes // 4
    transfer = Transfer("bench", elements, tuple(range(len(topology.sites))))
    algorithm, limit = select_algorithm(topology, transfer), bound(topology, transfer)
    repeats = 1 + warm_repeats(limit)
    cases = (
        Case(algorithm=algorithm.value, elements=elements, repeats=repeats),
        Case(algorithm=GLOO, elements=elements, repeats=1 + max(1, (repeats - 1) // 3)),
    )
    streams = streams_of_sites(topology)
    rounds = [
        one_round(topology, point.substrate, engine, cases, streams, limit)
        for _ in range(ROUNDS if limit < SHORT_SECONDS else 1)
    ]
    for samples, _, _ in rounds:
        sent = sum(sample.payload_bytes for sample in samples if sample.case == 0)
        assert sent == repeats * transfer.payload_bytes, "the ledger is not the plan"
    ours, gloo = ([slowest(samples, case) for samples, _, _ in rounds] for case in range(2))
    warm = [median(times[1:]) for times in ours]
    opened = opened_windows(topology)
    first = (Case(algorithm=algorithm.value, elements=elements, repeats=1),)
    at_once = [slowest(one_round(opened, point.substrate, engine, first, streams, limit)[0], 0)[0] for _ in rounds]
    return AllReduceTimes(
        **asdict(point),
        algorithm=algorithm.value,
        streams=max(max(counts.values()) for counts in streams),
        bound_ms=1e3 * limit,
        floor_ms=1e3 * floor(topology, transfer),
        cold_ms=1e3 * median(times[0] for times in ours),
        warm_ms=1e3 * median(warm),
        worst_ms=1e3 * max(warm),
        best_ms=1e3 * min(warm),
        gloo_cold_ms=1e3 * median(times[0] for times in gloo),
        gloo_ms=1e3 * median(median(times[1:]) for times in gloo),
        rounds=len(rounds),
        repeats=repeats - 1,
        cpu_seconds=median(processor_seconds(samples, 0) for samples, _, _ in rounds),
        gloo_cpu_seconds=median(processor_seconds(samples, 1) for samples, _, _ in rounds),
        links_passed=all(passed for _, passed, _ in rounds),
        host_busy_percent=max(busy for _, _, busy in rounds),
        cold_open_ms=1e3 * median(at_once),
        open_segments=opened.transport.initial_window,
    )


def streams_of_sites(topology: Topology) -> list[dict[int, int]]:
    """By site: how many connections it has to each other one."""
    names = [site.name for site in topology.sites]
    return [
        {peer: streams_per_pair(topology, name, other) for peer, other in enumerate(names) if other != name}
        for name in names
    ]


def opened_windows(topology: Topology) -> Topology:
    """The same with first windows as large as what a connection has in flight when all of them share the link."""
    first, second = (site.name for site in topology.sites[:2])
    product = bandwidth_delay_product(topology.rate(first, second), topology.rtt(first, second))
    connections = streams_per_pair(topology, first, second) * (len(topology.sites) - 1)
    window = math.ceil(product / segment(topology.transport.mtu) / connections)
    transport = topology.transport.model_copy(update={"initial_window": max(INITIAL_WINDOW, window)})
    return replace(topology, transport=transport)


@dataclass(frozen=True)
class AllReducePoint:
    """One network of the grid; `loaded`: while every core also trains at ordinary priority."""

    substrate: str
    loaded: bool
    sites: int
    rate_mbit: float
    rtt_ms: float
    payload_bytes: int

    def __str__(self) -> str:
        load = "added load" if self.loaded else "no added load"
        return f"{self.sites} x {self.rate_mbit:g} Mbit/s x {self.rtt_ms:g} ms, {self.substrate}, {load}"


@dataclass(frozen=True)
class AllReduceTimes(AllReducePoint):
    """What was measured there, in times of an all-reduce from the barrier to the last member's result. warm: the median
    over rounds of a round's median; best, worst: the fastest and the slowest round's.

    bound: the cheapest algorithm's alpha-beta cost, two delays and 2 (N-1)/N of the payload at goodput; floor: the
    same with its halves overlapped as far as causality allows. cpu_seconds: of all members together.
    """

    algorithm: str
    streams: int
    bound_ms: float
    floor_ms: float
    cold_ms: float
    warm_ms: float
    worst_ms: float
    best_ms: float
    gloo_cold_ms: float
    gloo_ms: float
    rounds: int
    repeats: int
    cpu_seconds: float
    gloo_cpu_seconds: float
    links_passed: bool
    host_busy_percent: float
    cold_open_ms: float | None = None  # the first exchange with first windows of so many segments
    open_segments: int | None = None

    @property
    def point(self) -> AllReducePoint:
        return AllReducePoint(*(getattr(self, field.name) for field in fields(AllReducePoint)))

    @property
    def efficiency_percent(self) -> float:
        return 100 * self.bound_ms / self.warm_ms

    @property
    def of_floor_percent(self) -> float:
        return 100 * self.floor_ms / self.warm_ms

    @property
    def worst_percent(self) -> float:
        return 100 * self.bound_ms / self.worst_ms

    @property
    def best_percent(self) -> float:
        return 100 * self.bound_ms / self.best_ms

    @property
    def cold_percent(self) -> float:
        return 100 * self.bound_ms / self.cold_ms

    @property
    def gloo_percent(self) -> float:
        return 100 * self.bound_ms / self.gloo_ms
