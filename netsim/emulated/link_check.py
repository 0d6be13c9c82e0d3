"""Link checks: echoes between the sites, then streams in rounds of disjoint pairs. In the runner process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count

from netsim.emulated.agent_client import AgentClient, wait
from netsim.emulated.compile import matchings
from netsim.emulated.gate import FULL, SHORT, LinkFinding, LinkMeasurement, LinkReport, Tolerance, evaluate
from netsim.emulated.node.probes import Stream, pace_of
from netsim.emulated.node.requests import Echo, ReadStream, RoundTrips, SendStream, StreamReceived
from netsim.emulated.plan import NodePlan
from netsim.framing import ETHERNET, bandwidth_delay_product, datagram, segment
from netsim.topology import Topology

_numbers = count(1)
_Pair = tuple[str, str]
MOST_SECONDS = 4.0  # for counting rare losses
AT_ONCE = 2e9  # bit/s of streams at a time, beyond which the host would be measured


@dataclass(frozen=True)
class ProbeBudget:
    """What a check may spend: echoes per pair and their spacing, and the length of streams in seconds."""

    echoes: int
    interval: float
    window: float  # measured part of a stream
    lead: float  # part before it that is not
    datagrams: int  # at least so many in a window
    tcp_window: float | None  # measured part of a TCP stream; None: datagrams alone
    tolerance: Tolerance


SHORT_BUDGET = ProbeBudget(9, 0.01, 0.25, 0.08, 80, None, SHORT)
FULL_BUDGET = ProbeBudget(31, 0.02, 0.3, 0.08, 300, 1.5, FULL)


@dataclass(frozen=True)
class _Counted:
    """What one stream showed. rate: payload bit/s in terms of TCP."""

    rate: float
    sent: int
    seen: int
    copies: int


class LinkChecker:
    """Checks the links of a running network."""

    def __init__(self, topology: Topology, links: Mapping[str, AgentClient], plans: Mapping[str, NodePlan]) -> None:
        self._topology, self._links, self._plans = topology, links, plans

    def check(self, budget: ProbeBudget, substrate: str, engine: str) -> LinkReport:
        names = [site.name for site in self._topology.sites]
        pairs = [(a.name, b.name) for a, b in self._topology.pairs()]
        findings = self._findings(pairs, budget)
        again = [pair for pair in pairs if not findings[pair].passed]
        if again:  # once: a probe may have met a busy moment of the host
            findings |= self._findings(again, budget)
        ordered = tuple(findings[pair] for pair in pairs)
        assert len(names) * (len(names) - 1) == len(ordered)
        return LinkReport(self._topology.name, engine, substrate, ordered, budget.tolerance)

    def _findings(self, pairs: Sequence[_Pair], budget: ProbeBudget) -> dict[_Pair, LinkFinding]:
        times = self._echoes(pairs, budget)
        # Datagrams need no answers, so both directions of a link can be full at once; acknowledgements take room.
        datagrams = self._rounds(pairs, lambda pair: self._datagrams(pair, budget), both_ways=True)
        smooth = [pair for pair in pairs if self._tcp_shows_rate(pair)] if budget.tcp_window else []
        tcp = self._rounds(smooth, lambda pair: self._tcp(pair, budget), both_ways=False)
        found = {}
        for pair in pairs:
            counted, kind = datagrams[pair], "tcp" if pair in tcp else "udp"
            rate = tcp[pair].rate if pair in tcp else counted.rate
            one = LinkMeasurement(tuple(times[pair]), rate, counted.sent, counted.seen, counted.copies, kind)
            found[pair] = evaluate(self._topology, *pair, one, budget.tolerance)
        return found

    def _tcp_shows_rate(self, pair: _Pair) -> bool:
        """Loss, reordering and jitter make TCP slower than the link by right; there datagrams show the rate."""
        there, back = self._topology.link(*pair), self._topology.link(pair[1], pair[0])
        return not any(link.mean_loss or link.jitter or link.duplicate for link in (there, back))

    def _echoes(self, pairs: Sequence[_Pair], budget: ProbeBudget) -> dict[_Pair, list[float]]:
        waits: list[tuple[str, list[str], Future[RoundTrips]]] = []
        times: dict[_Pair, list[float]] = {}
        for source in {a for a, _ in pairs}:
            targets = [b for a, b in pairs if a == source]
            jittery = any(self._jittery(source, target) for target in targets)
            echoes = 5 * budget.echoes if jittery else budget.echoes
            patience = max(self._topology.rtt(source, b) for b in targets) * 1.5 + 0.5
            future = self._links[source].request(
                Echo(tuple(self._plans[b].address for b in targets), echoes, budget.interval, patience)
            )
            waits.append((source, targets, future))
        for source, targets, future in waits:
            answer = wait([future], 60)[0]
            for target, answered in zip(targets, answer.echoes, strict=True):
                found = [took for _, took in answered if took is not None]
                # The first echo of a fresh pair meets cold caches.
                times[source, target] = found[1:] if len(found) > 2 else found
        return times

    def _jittery(self, a: str, b: str) -> bool:
        return self._topology.link(a, b).jitter is not None or self._topology.link(b, a).jitter is not None

    def _rounds(
        self, pairs: Sequence[_Pair], design: Callable[[_Pair], tuple[Stream, float]], *, both_ways: bool
    ) -> dict[_Pair, _Counted]:
        """Streams over all pairs, in rounds that share no access link in one direction and that the host can carry."""
        wanted = set(pairs)
        found: dict[_Pair, _Counted] = {}
        for matching in matchings([site.name for site in self._topology.sites]):
            there, back = list(matching), [(b, a) for a, b in matching]
            for together in [[*there, *back]] if both_ways else [there, back]:
                for group in self._affordable([pair for pair in together if pair in wanted]):
                    found |= self._streams({pair: design(pair) for pair in group})
        return found

    def _affordable(self, pairs: list[_Pair]) -> list[list[_Pair]]:
        groups: list[list[_Pair]] = []
        left = 0.0
        for pair in pairs:
            weight = self._topology.rate(*pair) * (12 if self._plans[pair[0]].segmented else 1)
            if not groups or weight > left:
                groups.append([])
                left = AT_ONCE
            groups[-1].append(pair)
            left -= weight
        return groups

    def _streams(self, streams: Mapping[_Pair, tuple[Stream, float]]) -> dict[_Pair, _Counted]:
        longest = max(stream.seconds for stream, _ in streams.values())
        sent = wait(
            [self._links[pair[0]].request(SendStream(stream)) for pair, (stream, _) in streams.items()],
            longest + 30,
        )
        found = {}
        for (pair, (stream, window)), answer in zip(streams.items(), sent, strict=True):
            report = self._report(pair, stream, window)
            rate = report.rate
            if stream.kind == "udp":
                mtu = self._topology.transport.mtu
                rate *= segment(mtu) / datagram(mtu)  # what TCP would carry in the same frames
            found[pair] = _Counted(rate, answer.sent, report.seen, report.datagrams - report.seen)
        return found

    def _report(self, pair: _Pair, stream: Stream, window: float) -> StreamReceived:
        """The receiver's count, once nothing more arrives."""
        topology = self._topology
        link = topology.link(*pair)
        settle = link.delay + (5 * link.jitter.spread if link.jitter else 0.0) + 0.03
        settle = max(settle, 4 * (topology.transport.mtu + ETHERNET) * 8 / topology.rate(*pair))
        receiver = self._links[pair[1]]
        end = time.monotonic() + settle + 10
        while True:
            quiet = receiver.call(ReadStream(stream.number, window, finish=False)).quiet
            if (quiet is not None and quiet >= settle) or time.monotonic() > end:
                break
            if quiet is None and time.monotonic() > end - 10:
                break
            time.sleep(settle - quiet if quiet is not None else settle)
        return receiver.call(ReadStream(stream.number, window, finish=True))

    def _datagrams(self, pair: _Pair, budget: ProbeBudget) -> tuple[Stream, float]:
        """A stream of datagrams and the window at its end that is measured. Its bursts must fit the link's queues."""
        rate, mtu = self._topology.rate(*pair), self._topology.transport.mtu
        frame, payload = mtu + ETHERNET, datagram(mtu)
        datagrams = budget.datagrams
        if budget.tcp_window and (loss := self._topology.link(*pair).mean_loss):
            datagrams = max(datagrams, round(60 / loss))  # enough of them lost to tell how many
        window = max(budget.window, min(MOST_SECONDS, datagrams * frame * 8 / rate))
        window = max(window, budget.datagrams * frame * 8 / rate)
        source, target = (self._plans[name] for name in pair)
        queue = min([target.queue_down, *(peer.queue for peer in source.peers if peer.site == target.site)])
        batch = max(1, min(60_000 // payload, int(min(rate * 0.002 / 8, queue / 8) / payload), 44))
        room = max(2 * frame, batch * frame)
        seconds = window + budget.lead
        pace = pace_of(rate, queue, seconds, mtu) if source.engine == "netem" else None
        stream = Stream(next(_numbers), "udp", source.address, target.address, seconds, payload, batch, room, pace)
        return stream, window

    def _tcp(self, pair: _Pair, budget: ProbeBudget) -> tuple[Stream, float]:
        """TCP streams and the window at their end, when slow start is over."""
        rate, rtt, mtu = self._topology.rate(*pair), self._topology.rtt(*pair), self._topology.transport.mtu
        assert budget.tcp_window is not None
        window = max(budget.tcp_window, budget.datagrams * (mtu + ETHERNET) * 8 / rate)
        product = bandwidth_delay_product(rate, rtt)
        streams = max(1, min(16, product // 1_000_000))
        doublings = math.log2(max(1.0, product / (streams * 10 * segment(mtu))))
        seconds = window + budget.lead + (doublings + 4) * rtt
        ends = self._plans[pair[0]].address, self._plans[pair[1]].address
        return Stream(next(_numbers), "tcp", *ends, seconds, segment(mtu), streams=streams), window


def budget_of(short: bool) -> ProbeBudget:
    return SHORT_BUDGET if short else FULL_BUDGET
