"""The link gate: what the probes of each directed pair measured against what was requested. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from netsim.emulated.jitter import deviation, mean_delay, middle_half, round_trips
from netsim.framing import ETHERNET, goodput
from netsim.topology import GilbertElliott, Link, Topology


@dataclass(frozen=True)
class Tolerance:
    """How far a link may be off. Seconds and shares."""

    rtt: float
    rtt_share: float
    goodput: float
    confidence: float  # of the interval that the lost packets must lie in
    tail: float | None = None  # p99 of the RTT above what was requested, of links without jitter; None: not judged


FULL = Tolerance(rtt=0.001, rtt_share=0.01, goodput=0.03, confidence=0.999, tail=0.02)
SHORT = Tolerance(rtt=0.002, rtt_share=0.02, goodput=0.06, confidence=0.9999)
_SIGMAS = 4.0  # of a statistic, that it may be off by chance
_ENDS = 0.05  # of the RTTs under jitter, the earliest and the latest
_FEWEST = 20  # echoes or losses from which a spread or a burst length is judged
_QUARTILES_ERROR = 1.17  # relative standard error of the distance between quartiles, times the root of the count


@dataclass(frozen=True)
class LinkMeasurement:
    """What the probes of one directed pair saw: seconds, payload bit/s in terms of TCP, datagrams.

    spacing: seconds between the echoes' packets on the link; gaps: runs of consecutive datagrams that were lost;
    reordered: datagrams that a later one had overtaken; window: seconds over which the goodput was counted.
    """

    round_trips: tuple[float, ...]
    goodput: float
    sent: int
    seen: int
    duplicated: int
    probe: str
    spacing: float = 1.0
    gaps: int = 0
    reordered: int = 0
    window: float = 1.0


@dataclass(frozen=True)
class LinkFinding:
    """One directed pair, requested (`asked`), expected and measured.

    expected: what follows from the request for these probes: an RTT with the mean of the jitter that is applied, the
    goodput that the framing leaves. why: each excess; empty if the pair passed. not_judged: what no probe can show.
    """

    source: str
    target: str
    rtt_ms_asked: float
    rtt_ms_expected: float
    rtt_ms: float | None
    rtt_ms_p99: float | None
    jitter_ms_asked: float
    jitter_ms: float | None
    rate_mbit_asked: float
    goodput_mbit_expected: float
    goodput_mbit: float
    loss_asked: float
    loss: float
    datagrams: int
    lost: int
    bursts: int
    duplicated: int
    reordered: int
    probe: str
    why: tuple[str, ...]
    not_judged: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.why

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class LinkReport:
    """The check of a whole network.

    links: the pairs that were probed. inferred: how many pairs are of the same class as a probed one, by `a -> b`; by
    the empty text, those of which only the access links were probed. seed: of the choice of pairs.
    """

    topology: str
    engine: str
    substrate: str
    links: tuple[LinkFinding, ...]
    tolerance: Tolerance
    inferred: dict[str, int] = field(default_factory=dict)
    seed: int = 0

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
            "inferred": self.inferred,
            "seed": self.seed,
            "tolerance": asdict(self.tolerance),
        }


def evaluate(topology: Topology, source: str, target: str, found: LinkMeasurement, tolerance: Tolerance) -> LinkFinding:
    """Compares one directed pair. A jittery link is judged by its mean, any other by its median."""
    there, back = topology.link(source, target), topology.link(target, source)
    rate = topology.rate(source, target)
    expected = goodput(rate, topology.transport.mtu) * (1 - there.mean_loss)
    expected_rtt = mean_delay(there, found.spacing) + mean_delay(back, found.spacing)
    spread = math.hypot(deviation(there, found.spacing), deviation(back, found.spacing))
    times = found.round_trips
    rtt = (statistics.fmean(times) if spread else statistics.median(times)) if times else None
    p99 = sorted(times)[math.ceil(0.99 * len(times)) - 1] if times else None
    allowed = max(tolerance.rtt, tolerance.rtt_share * expected_rtt) + _SIGMAS * spread / math.sqrt(max(1, len(times)))
    lost = found.sent - found.seen
    spacing = (topology.transport.mtu + ETHERNET) * 8 / rate
    why = [
        *_check_rtt(expected_rtt, rtt, allowed, there, back, _undisturbed(times, there, back, found.spacing, spread)),
        *(
            _check_tail(expected_rtt, times, tolerance)
            if not spread
            else _check_spread(times, there, back, found.spacing)
        ),
        *_check_goodput(expected, found.goodput, there, found, tolerance),
        *_check_loss(there, found, tolerance),
        *_check_bursts(there, found),
        *_check_copies(there, found, tolerance),
        *_check_order(there, found, spacing),
    ]
    return LinkFinding(
        source=source,
        target=target,
        rtt_ms_asked=_ms(topology.rtt(source, target)),
        rtt_ms_expected=_ms(expected_rtt),
        rtt_ms=None if rtt is None else _ms(rtt),
        rtt_ms_p99=None if p99 is None else _ms(p99),
        jitter_ms_asked=_ms(spread),
        jitter_ms=_ms(statistics.stdev(times)) if len(times) > 1 else None,
        rate_mbit_asked=round(rate / 1e6, 6),
        goodput_mbit_expected=round(expected / 1e6, 4),
        goodput_mbit=round(found.goodput / 1e6, 4),
        loss_asked=there.mean_loss,
        loss=round(lost / found.sent, 6) if found.sent else 0.0,
        datagrams=found.sent,
        lost=lost,
        bursts=found.gaps,
        duplicated=found.duplicated,
        reordered=found.reordered,
        probe=found.probe,
        why=tuple(why),
        # Where the tolerance is as long as the RTT, a link without any delay would pass: only too slow is noticed.
        not_judged=("whether the RTT is too short",) if 0 < expected_rtt <= allowed else (),
    )


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


def _undisturbed(times: Sequence[float], there: Link, back: Link, spacing: float, spread: float) -> float:
    """How far RTTs under jitter are off, by the mean without their ends, which a host that stalls does not move."""
    if not spread or len(times) < _FEWEST:
        return math.inf
    return abs(_without_ends(times) - _without_ends(round_trips(there, back, spacing)))


def _without_ends(times: Sequence[float]) -> float:
    cut = math.ceil(_ENDS * len(times))
    return statistics.fmean(sorted(times)[cut : len(times) - cut])


def _check_rtt(
    expected: float, rtt: float | None, allowed: float, there: Link, back: Link, undisturbed: float
) -> list[str]:
    if rtt is None:
        silent = there.mean_loss >= 1 or back.mean_loss >= 1
        return [] if silent else [f"no echo came back, expected an RTT of {_ms(expected):g} ms"]
    if min(abs(rtt - expected), undisturbed) <= allowed:
        return []
    return [f"RTT {_ms(rtt):g} ms, expected {_ms(expected):g} ms +/- {_ms(allowed):.3g} ms"]


def _check_tail(expected: float, times: Sequence[float], tolerance: Tolerance) -> list[str]:
    """Whether more than 1 % of the RTTs are late, as far as so few tell: the p99 of 30 is the latest of them alone."""
    if tolerance.tail is None or not times or max(times) <= expected + tolerance.tail:
        return []
    from scipy.stats import binom  # takes a second to import, and hardly any echo is late

    late = sum(took > expected + tolerance.tail for took in times)
    if late <= binom.ppf(tolerance.confidence, len(times), 0.01):
        return []
    return [f"{late} of {len(times)} RTTs above {_ms(expected + tolerance.tail):g} ms, expected 1 % of them at most"]


def _check_spread(times: Sequence[float], there: Link, back: Link, spacing: float) -> list[str]:
    """By the quartiles, which a host that stalls for a moment does not move."""
    if len(times) < _FEWEST:
        return []
    expected, found = middle_half(round_trips(there, back, spacing)), middle_half(list(times))
    allowed = _SIGMAS * _QUARTILES_ERROR / math.sqrt(len(times)) * expected + 0.001
    if abs(found - expected) <= allowed:
        return []
    return [f"middle half of the RTTs {_ms(found):g} ms wide, expected {_ms(expected):g} ms +/- {_ms(allowed):.3g} ms"]


def _check_goodput(
    expected: float, found: float, link: Link, counts: LinkMeasurement, tolerance: Tolerance
) -> list[str]:
    # On a lossy link the rate that arrives is as random as the loss.
    low, high = loss_interval(link, max(1, counts.sent), tolerance.confidence)
    slack = (high - low) / max(1, counts.sent) / 2 if link.mean_loss else 0.0
    blurred = 2 * link.jitter.spread / counts.window if link.jitter else 0.0
    share = tolerance.goodput + slack + blurred
    if abs(found - expected) <= share * expected:
        return []
    return [f"goodput {found / 1e6:.4g} Mbit/s, expected {expected / 1e6:.4g} Mbit/s +/- {share:.1%}"]


def _check_loss(link: Link, found: LinkMeasurement, tolerance: Tolerance) -> list[str]:
    low, high = loss_interval(link, found.sent, tolerance.confidence)
    if low <= found.sent - found.seen <= high:
        return []
    lost = f"{found.sent - found.seen} of {found.sent} packets lost"
    return [f"{lost}, expected {low} to {high} at a loss of {link.mean_loss:.3%}"]


def burst_length(link: Link) -> float | None:
    """Mean number of packets lost in a row; None where the chain is not of the kind whose bursts are counted easily."""
    if not isinstance(link.loss, GilbertElliott):
        return 1 / (1 - link.loss) if link.loss < 1 else None
    if link.loss.loss_in_bad < 1 or link.loss.loss_in_good > 0 or link.loss.to_good == 0:
        return None
    return 1 / link.loss.to_good


def _check_bursts(link: Link, found: LinkMeasurement) -> list[str]:
    expected, lost = burst_length(link), found.sent - found.seen
    if expected is None or found.gaps < _FEWEST:
        return []
    length = lost / found.gaps
    allowed = _SIGMAS * math.sqrt(expected * (expected - 1) / found.gaps) + 0.05 * expected
    if abs(length - expected) <= allowed:
        return []
    return [f"{length:.2f} packets lost in a row on average, expected {expected:.2f} +/- {allowed:.2f}"]


def _check_copies(link: Link, found: LinkMeasurement, tolerance: Tolerance) -> list[str]:
    if link.duplicate in (0.0, 1.0):
        low = high = round(link.duplicate * found.seen)
    else:
        from scipy.stats import binom  # takes a second to import, and hardly any link duplicates

        low, high = (int(bound) for bound in binom.interval(tolerance.confidence, max(1, found.seen), link.duplicate))
    if low <= found.duplicated <= high:
        return []
    return [f"{found.duplicated} of {found.seen} packets duplicated, expected {low} to {high}"]


def _check_order(link: Link, found: LinkMeasurement, spacing: float) -> list[str]:
    if link.jitter is None or not link.jitter.reorder:
        return [f"{found.reordered} packets overtaken, expected none"] if found.reordered else []
    many = found.seen >= _FEWEST and link.jitter.spread > 2 * spacing
    return [f"no packet overtaken by another among {found.seen}"] if many and not found.reordered else []


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
