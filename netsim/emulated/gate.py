"""The link gate: measured RTT, goodput and loss of each directed pair against what was requested. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from netsim.framing import goodput
from netsim.topology import GilbertElliott, Link, Topology


@dataclass(frozen=True)
class Tolerance:
    """How far a link may be off. Seconds and shares."""

    rtt: float
    rtt_share: float
    goodput: float
    confidence: float  # of the interval that the lost packets must lie in


FULL = Tolerance(rtt=0.001, rtt_share=0.01, goodput=0.03, confidence=0.999)
SHORT = Tolerance(rtt=0.002, rtt_share=0.02, goodput=0.06, confidence=0.9999)


@dataclass(frozen=True)
class LinkMeasurement:
    """What the probes of one directed pair saw: seconds, payload bit/s in terms of TCP, datagrams."""

    round_trips: tuple[float, ...]
    goodput: float
    sent: int
    seen: int
    duplicated: int
    probe: str


@dataclass(frozen=True)
class LinkFinding:
    """One directed pair, requested (`asked`) and measured. `why` names each excess; it is empty if the pair passed."""

    source: str
    target: str
    rtt_ms_asked: float
    rtt_ms: float | None
    jitter_ms_asked: float
    jitter_ms: float | None
    rate_mbit_asked: float
    goodput_mbit_expected: float
    goodput_mbit: float
    loss_asked: float
    loss: float
    datagrams: int
    lost: int
    duplicated: int
    probe: str
    why: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.why

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class LinkReport:
    """The check of a whole network."""

    topology: str
    engine: str
    substrate: str
    links: tuple[LinkFinding, ...]
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        return all(link.passed for link in self.links)

    def problems(self) -> list[str]:
        """Each excess of each link, in words."""
        return [f"{link.source} -> {link.target}: {why}" for link in self.links for why in link.why]

    def to_json(self) -> dict[str, Any]:
        return {
            "topology": self.topology,
            "engine": self.engine,
            "substrate": self.substrate,
            "passed": self.passed,
            "links": [link.to_json() for link in self.links],
            "tolerance": asdict(self.tolerance),
        }


def evaluate(topology: Topology, source: str, target: str, found: LinkMeasurement, tolerance: Tolerance) -> LinkFinding:
    """Compares one directed pair. A jittery link is judged by its mean, any other by its median."""
    there, back = topology.link(source, target), topology.link(target, source)
    asked, rate = topology.rtt(source, target), topology.rate(source, target)
    expected = goodput(rate, topology.transport.mtu) * (1 - there.mean_loss)
    spread = math.hypot(deviation(there), deviation(back))
    rtt, jitter = _round_trip(found.round_trips, jittery=spread > 0)
    lost = 1 - found.seen / found.sent if found.sent else 0.0
    why = [
        *_check_rtt(asked, rtt, spread, len(found.round_trips), there, back, tolerance),
        *_check_goodput(expected, found.goodput, there, found, tolerance),
        *_check_loss(there, found, tolerance),
    ]
    return LinkFinding(
        source=source,
        target=target,
        rtt_ms_asked=_ms(asked),
        rtt_ms=None if rtt is None else _ms(rtt),
        jitter_ms_asked=_ms(spread),
        jitter_ms=None if jitter is None else _ms(jitter),
        rate_mbit_asked=round(rate / 1e6, 6),
        goodput_mbit_expected=round(expected / 1e6, 4),
        goodput_mbit=round(found.goodput / 1e6, 4),
        loss_asked=there.mean_loss,
        loss=round(lost, 6),
        datagrams=found.sent,
        lost=found.sent - found.seen,
        duplicated=found.duplicated,
        probe=found.probe,
        why=tuple(why),
    )


def deviation(link: Link) -> float:
    """Standard deviation of the link's one-way delay, seconds; a uniform spread is a half-width."""
    if link.jitter is None:
        return 0.0
    return link.jitter.spread / math.sqrt(3) if link.jitter.distribution == "uniform" else link.jitter.spread


def loss_interval(link: Link, sent: int, confidence: float) -> tuple[int, int]:
    """Between how many lost packets of `sent` lie with that probability.

    Bernoulli: binomial. Gilbert-Elliott: losses come in bursts, so the count varies as that of fewer independent
    packets would; the factor is that of a two-state chain, (1 + c) / (1 - c) with c = 1 - to_bad - to_good.
    """
    mean, effective = link.mean_loss, float(sent)
    if mean in (0.0, 1.0):
        return round(mean * sent), round(mean * sent)
    from scipy.stats import binom  # takes a second to import, and most links lose nothing

    if isinstance(link.loss, GilbertElliott) and 0 < link.loss.to_bad + link.loss.to_good < 2:
        correlation = 1 - link.loss.to_bad - link.loss.to_good
        effective = max(1.0, sent * min(1.0, (1 - correlation) / (1 + correlation)))
    low, high = binom.interval(confidence, max(1, round(effective)), mean)
    scale = sent / max(1.0, round(effective))
    return math.floor(low * scale), math.ceil(high * scale)


def _round_trip(times: Sequence[float], *, jittery: bool) -> tuple[float | None, float | None]:
    if not times:
        return None, None
    centre = statistics.fmean(times) if jittery else statistics.median(times)
    return centre, statistics.stdev(times) if len(times) > 1 else None


def _check_rtt(
    asked: float, rtt: float | None, spread: float, count: int, there: Link, back: Link, tolerance: Tolerance
) -> list[str]:
    if rtt is None:
        silent = there.mean_loss >= 1 or back.mean_loss >= 1
        return [] if silent else [f"no echo came back, expected an RTT of {_ms(asked):g} ms"]
    allowed = max(tolerance.rtt, tolerance.rtt_share * asked) + 4 * spread / math.sqrt(count)
    if abs(rtt - asked) <= allowed:
        return []
    return [f"RTT {_ms(rtt):g} ms, expected {_ms(asked):g} ms +/- {_ms(allowed):.3g} ms"]


def _check_goodput(
    expected: float, found: float, link: Link, counts: LinkMeasurement, tolerance: Tolerance
) -> list[str]:
    # On a lossy link the rate that arrives is as random as the loss.
    low, high = loss_interval(link, max(1, counts.sent), tolerance.confidence)
    slack = (high - low) / max(1, counts.sent) / 2 if link.mean_loss else 0.0
    share = tolerance.goodput + slack + link.duplicate
    if abs(found - expected) <= share * expected:
        return []
    return [f"goodput {found / 1e6:.4g} Mbit/s, expected {expected / 1e6:.4g} Mbit/s +/- {share:.1%}"]


def _check_loss(link: Link, found: LinkMeasurement, tolerance: Tolerance) -> list[str]:
    low, high = loss_interval(link, found.sent, tolerance.confidence)
    if low <= found.sent - found.seen <= high:
        return []
    lost = f"{found.sent - found.seen} of {found.sent} packets lost"
    return [f"{lost}, expected {low} to {high} at a loss of {link.mean_loss:.3%}"]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
