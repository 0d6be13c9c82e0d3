"""Accuracy of emulated links over a grid of rates, RTTs, losses and jitters, with and without our own load.

Runs in the command line's process. Every point is a network of its own: two sites, one link. Round-trip times, goodput
and loss are measured by the gate's probes, jitter by a long series of echoes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import psutil

from harness.bench.load import busy_cores
from harness.bench.rows import append_host, append_row, hosts_of, stored_rows
from harness.records.environment import fingerprint
from netsim.emulated.gate import loss_interval
from netsim.emulated.jitter import deviation, mean_delay
from netsim.emulated.network import open_network
from netsim.emulated.owner import scratch
from netsim.errors import LonghaulError
from netsim.topology import Topology, topology_from

RATES = ("1 Mbit", "10 Mbit", "100 Mbit", "1 Gbit")
RTTS = ("5 ms", "50 ms", "300 ms")
LOSSES = (0.01, 0.03)  # and with each of these at the middle RTT; jitter at the middle rate too
JITTERS = (("normal", "5 ms"), ("pareto", "5 ms"), ("uniform", "8 ms"))
ECHOES, INTERVAL = 200, 0.01
APART = 0.04  # between echoes over jittery links, so that none has to wait for the one ahead
CONFIDENCE = 0.99
GOODPUT_SHARE = 0.03
RTT_SHARE, RTT_MS = 0.01, 1.0


def measure_links(
    points: Sequence[LinkPoint], results: Path | None = None, report: Callable[[str], None] = lambda _: None
) -> list[LinkAccuracy]:
    """The rows of `points`, in their order. `results`: JSON lines to continue from and to append to.

    `report` receives one line before each measurement. LonghaulError if no echo comes back.
    """
    rows = {row.point: row for row in stored_links(results)}
    left = [point for point in points if point not in rows]
    done = len(points) - len(left)
    for loaded in sorted({point.loaded for point in left}):
        with busy_cores() if loaded else nullcontext():
            for point in [point for point in left if point.loaded == loaded]:
                done += 1
                report(f"{done}/{len(points)}  {point}")
                rows[point] = _measure(point)
                if results is not None:
                    append_host(results, fingerprint())
                    append_row(results, rows[point])
    return [rows[point] for point in points]


def link_grid(
    rates: Sequence[str], rtts: Sequence[str], substrate: str, engine: str, loaded: bool
) -> Iterator[LinkPoint]:
    """Every rate at every RTT; every rate with each loss, and one rate with each jitter, at the middle RTT."""
    middle = rtts[len(rtts) // 2]
    for rate, rtt in product(rates, rtts):
        yield LinkPoint(substrate, engine, loaded, rate, rtt, 0.0, "", "0 ms")
    for rate, loss in product(rates, LOSSES):
        yield LinkPoint(substrate, engine, loaded, rate, middle, loss, "", "0 ms")
    for distribution, spread in JITTERS:
        yield LinkPoint(substrate, engine, loaded, rates[len(rates) // 2], middle, 0.0, distribution, spread)


def stored_links(results: Path | None) -> list[LinkAccuracy]:
    """The rows in a file of results; none if there is no file."""
    lines = [line for line in stored_rows(results) if "point" in line]
    return [LinkAccuracy(**{**line, "point": LinkPoint(**line["point"])}) for line in lines]


def hosts_of_links(results: Path | None) -> list[dict[str, Any]]:
    """The hosts on which they were measured."""
    return hosts_of(results, lambda row: "point" in row)


def _topology(point: LinkPoint) -> Topology:
    link: dict[str, Any] = {"between": ["a", "b"], "rtt": point.rtt, "loss": point.loss}
    if point.distribution:
        link["jitter"] = {"spread": point.spread, "distribution": point.distribution}
    document = {
        "name": "bench",
        "defaults": {"up": point.rate, "down": point.rate},
        "sites": {"a": {}, "b": {}},
        "links": [link],
    }
    return topology_from(document, "bench wan")


def _measure(point: LinkPoint) -> LinkAccuracy:
    topology = _topology(point)
    interval = APART if point.distribution else INTERVAL
    psutil.cpu_percent()
    with (
        scratch("bench") as directory,
        open_network(
            topology, run_id="bench-wan", directory=directory, substrate=point.substrate, engine=point.engine
        ) as network,
    ):
        report = network.check(short=False)
        took = [one for _, one in network.echo("a", "b", count=ECHOES, interval=interval) if one is not None]
    busy = psutil.cpu_percent()
    if len(took) < 2:
        raise LonghaulError(f"no echo came back over {point}")
    worst = max(report.links, key=lambda link: abs(link.goodput_mbit / link.goodput_mbit_expected - 1))
    link, back = topology.link("a", "b"), topology.link("b", "a")
    expected = mean_delay(link, interval) + mean_delay(back, interval)  # of echoes so far apart
    sent, lost = sum(one.datagrams for one in report.links), sum(one.lost for one in report.links)
    low, high = loss_interval(link, sent, CONFIDENCE)
    late = sorted(one - topology.rtt("a", "b") for one in took)
    return LinkAccuracy(
        point=point,
        rtt_ms_asked=1000 * expected,
        rtt_ms=1000 * (fmean(took) if point.distribution else median(took)),
        rtt_ms_late_95=1000 * late[int(0.95 * (len(late) - 1))],
        jitter_ms_asked=1000 * math.hypot(deviation(link, interval), deviation(back, interval)),
        jitter_ms=1000 * stdev(took),
        goodput_mbit_expected=worst.goodput_mbit_expected,
        goodput_mbit=worst.goodput_mbit,
        probe=worst.probe,
        datagrams=sent,
        lost=lost,
        lost_least=low,
        lost_most=high,
        gate_passed=report.passed,
        host_busy_percent=busy,
    )


@dataclass(frozen=True)
class LinkPoint:
    """One link, and where it was measured, in the units of topology files.

    loaded: while every core also trains at ordinary priority; if not, without any load of ours.
    """

    substrate: str
    engine: str
    loaded: bool
    rate: str
    rtt: str
    loss: float
    distribution: str
    spread: str

    def __str__(self) -> str:
        jitter = f", jitter {self.spread} {self.distribution}" if self.distribution else ""
        condition = "added load" if self.loaded else "no added load"
        return f"{self.substrate}, {condition}: {self.rate} x {self.rtt}, loss {self.loss:.0%}{jitter}"


@dataclass(frozen=True)
class LinkAccuracy:
    """Measurements at a point. rtt_ms: median (mean under jitter); rtt_ms_late_95: p95 of RTT minus declared RTT.

    host_busy_percent: CPU use of the whole host while the network stood: emulation, probes, load, other programs.

    Losses are of both directions together, with the 99 % interval of what was asked. The goodput is that of the worse
    direction.
    """

    point: LinkPoint
    rtt_ms_asked: float
    rtt_ms: float
    rtt_ms_late_95: float
    jitter_ms_asked: float
    jitter_ms: float
    goodput_mbit_expected: float
    goodput_mbit: float
    probe: str
    datagrams: int
    lost: int
    lost_least: int
    lost_most: int
    gate_passed: bool
    host_busy_percent: float

    @property
    def rtt_error_ms(self) -> float:
        return self.rtt_ms - self.rtt_ms_asked

    @property
    def goodput_error(self) -> float:
        return self.goodput_mbit / self.goodput_mbit_expected - 1

    @property
    def rtt_within(self) -> bool:
        spread = 4 * self.jitter_ms_asked / math.sqrt(200)
        return abs(self.rtt_error_ms) <= max(RTT_MS, RTT_SHARE * self.rtt_ms_asked) + spread

    @property
    def goodput_within(self) -> bool:
        noise = (self.lost_most - self.lost_least) / max(1, self.datagrams) if self.point.loss else 0.0
        return abs(self.goodput_error) <= GOODPUT_SHARE + noise

    @property
    def loss_within(self) -> bool:
        return self.lost_least <= self.lost <= self.lost_most
