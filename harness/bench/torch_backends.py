"""All-reduces through torch.distributed: our backend beside gloo, on one network. In the command line's process.

What a script gains by `init_process_group("longhaul")`. The rows are in the same file as those of `all_reduce`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.bench.all_reduce import star_document, streams_of_sites, warm_repeats
from harness.bench.all_reduce_round import one_round, slowest
from harness.bench.all_reduce_worker import Case
from harness.bench.rows import append_host, append_row, stored_rows
from harness.bench.torch_group import GLOO, OURS
from harness.records.environment import fingerprint
from netsim.collectives import bound
from netsim.topology import topology_from
from netsim.traffic import Transfer

NETWORKS = ((4, "100 Mbit", "50 ms"), (4, "1 Gbit", "50 ms"), (4, "1 Gbit", "200 ms"))
SMALL_BYTES = 1000


@dataclass(frozen=True)
class BackendPoint:
    """rate, rtt: as in topology files."""

    substrate: str
    sites: int
    rate: str
    rtt: str
    payload_bytes: int


@dataclass(frozen=True)
class BackendTimes:
    """Milliseconds of an all-reduce, from the barrier to the last member's result: the first, and the median after it.

    bound_ms: the alpha-beta cost of the cheapest algorithm.
    """

    backend_point: BackendPoint
    bound_ms: float
    ours_ms: float
    ours_cold_ms: float
    gloo_ms: float
    gloo_cold_ms: float
    links_passed: bool
    host_busy_percent: float


def measure_backends(
    networks: Sequence[tuple[int, str, str]],
    payload_bytes: int,
    substrate: str,
    engine: str,
    results: Path | None,
    report: Callable[[str], None],
) -> list[BackendTimes]:
    """Both backends with this payload and with 1 kB on each network (sites, rate, RTT), and the rows of `results`."""
    rows = {row.backend_point: row for row in stored_backends(results)}
    sizes = [payload_bytes, SMALL_BYTES]
    for network in networks:
        points = [BackendPoint(substrate, *network, size) for size in sizes]
        if all(point in rows for point in points):
            continue
        report(f"through torch.distributed: {' x '.join(map(str, network))}, {substrate}")
        for row in _measure(points, engine):
            rows[row.backend_point] = row
            if results is not None:
                append_host(results, fingerprint())
                append_row(results, row)
    return list(rows.values())


def stored_backends(results: Path | None) -> list[BackendTimes]:
    """The rows of this kind in a file of results."""
    lines = [line for line in stored_rows(results) if "backend_point" in line]
    return [BackendTimes(**{**line, "backend_point": BackendPoint(**line["backend_point"])}) for line in lines]


def cases_of(transfers: Sequence[Transfer], bounds: Sequence[float]) -> list[Case]:
    """Of each transfer, the one with our backend and the one with gloo."""
    return [
        Case(algorithm=backend, elements=transfer.elements, repeats=1 + warm_repeats(limit))
        for transfer, limit in zip(transfers, bounds, strict=True)
        for backend in (OURS, GLOO)
    ]


def _measure(points: Sequence[BackendPoint], engine: str) -> list[BackendTimes]:
    """All payloads on one network."""
    first = points[0]
    document = star_document(first.sites, first.rate, first.rtt)
    topology = topology_from(document, "bench collectives")
    transfers = [Transfer("bench", point.payload_bytes // 4, tuple(range(first.sites))) for point in points]
    bounds = [bound(topology, transfer) for transfer in transfers]
    cases = cases_of(transfers, bounds)
    environment = {"LONGHAUL_IFNAME": "wan0", "LONGHAUL_TOPOLOGY": json.dumps(document)}
    streams = streams_of_sites(topology)
    samples, passed, busy = one_round(topology, first.substrate, engine, cases, streams, max(bounds), environment)
    times = [slowest(samples, case) for case in range(len(cases))]
    return [
        BackendTimes(
            point,
            bound_ms=1e3 * limit,
            ours_ms=1e3 * median(ours[1:]),
            ours_cold_ms=1e3 * ours[0],
            gloo_ms=1e3 * median(gloo[1:]),
            gloo_cold_ms=1e3 * gloo[0],
            links_passed=passed,
            host_busy_percent=busy,
        )
        for point, limit, ours, gloo in zip(points, bounds, times[::2], times[1::2], strict=True)
    ]
