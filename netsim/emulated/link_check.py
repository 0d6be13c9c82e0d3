"""Link checks: echoes between the sites, then streams in rounds of disjoint pairs. In the runner process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from netsim.emulated.agent_client import AgentClient, PendingAnswer, wait
from netsim.emulated.compile import queue_control
from netsim.emulated.gate import FULL, SHORT, LinkFinding, LinkMeasurement, LinkReport, Tolerance, evaluate
from netsim.emulated.node.probes import ProbeStream
from netsim.emulated.node.requests import Echo, ReadStream, RoundTrips, SendStream, StreamReceived
from netsim.emulated.plan import NodePlan, QueueControl
from netsim.emulated.probe_plan import ALL_UP_TO, Pair, disjoint_rounds, plan_probes
from netsim.framing import ETHERNET, bandwidth_delay_product, datagram, segment
from netsim.topology import Link, Topology

_numbers = count(1)
MOST_SECONDS = 4.0  # for counting rare losses
AT_ONCE = 2e9  # bit/s of streams at a time, beyond which the host would be measured
ECHOES_PER_SECOND = 1000  # of the whole network, for the same reason
_LONGEST_JITTER = 4.0  # spreads: what is held up longer is too little to be missed
_MOST_EXCESS = 0.05  # of a paced stream over the rate of the link
STREAM_OVERHEAD = 0.25  # seconds per round of streams, to start them and to fetch what arrived
SECONDS_PER_SITE = {True: 1.0, False: 10.0}  # of a short and of a full check of a large network, at most


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
    received: StreamReceived


class LinkChecker:
    """Checks the links of a running network. seed: of the choice of pairs, where not all are probed."""

    def __init__(
        self, topology: Topology, links: Mapping[str, AgentClient], plans: Mapping[str, NodePlan], seed: int
    ) -> None:
        self._topology, self._links, self._plans, self._seed = topology, links, plans, seed

    def check(self, budget: ProbeBudget, substrate: str, engine: str) -> LinkReport:
        limit = SECONDS_PER_SITE[budget.tcp_window is None] * len(self._topology.sites) / 2  # the rest: a second try
        plan = plan_probes(self._topology, self._seed, lambda pairs: self._seconds(pairs, budget), limit)
        findings = self._findings(plan.pairs, budget)
        again = [pair for pair in plan.pairs if not findings[pair].passed]
        if again:  # once: a probe may have met a busy moment of the host
            findings |= self._findings(again, budget)
        ordered = tuple(findings[pair] for pair in plan.pairs)
        return LinkReport(self._topology.name, engine, substrate, ordered, budget.tolerance, plan.inferred, plan.seed)

    def _seconds(self, pairs: Sequence[Pair], budget: ProbeBudget) -> float:
        """About how long probing these pairs takes."""
        streams = [self._rounds(pairs, both_ways=True)]
        if budget.tcp_window:
            streams.append(self._rounds([pair for pair in pairs if self._tcp_shows_rate(pair)], both_ways=False))
        designs = (self.datagrams, self._tcp)
        lengths = [
            max(design(pair, budget)[0].seconds + self._topology.link(*pair).delay for pair in group)
            for design, groups in zip(designs, streams, strict=False)
            for group in groups
        ]
        interval, count = self._echo_pace(pairs, budget)
        return interval * count + sum(lengths) + STREAM_OVERHEAD * len(lengths)

    def _findings(self, pairs: Sequence[Pair], budget: ProbeBudget) -> dict[Pair, LinkFinding]:
        times, spacing = self._echoes(pairs, budget)
        # Datagrams need no answers, so both directions of a link can be full at once; acknowledgements take room.
        datagrams = self._measure(pairs, lambda pair: self.datagrams(pair, budget), both_ways=True)
        smooth = [pair for pair in pairs if self._tcp_shows_rate(pair)] if budget.tcp_window else []
        tcp = self._measure(smooth, lambda pair: self._tcp(pair, budget), both_ways=False)
        found = {}
        for pair in pairs:
            counted, kind = datagrams[pair], "tcp" if pair in tcp else "udp"
            received = counted.received
            one = LinkMeasurement(
                round_trips=tuple(times[pair]),
                goodput=tcp[pair].rate if pair in tcp else counted.rate,
                sent=counted.sent,
                seen=received.seen,
                duplicated=received.datagrams - received.seen,
                probe=kind,
                spacing=spacing,
                gaps=received.gaps,
                reordered=received.reordered,
                window=self.datagrams(pair, budget)[1],
            )
            found[pair] = evaluate(self._topology, *pair, one, budget.tolerance)
        return found

    def _tcp_shows_rate(self, pair: Pair) -> bool:
        """Loss, reordering, jitter and early drops make TCP slower than the link by right; datagrams show the rate."""
        there, back = self._topology.link(*pair), self._topology.link(pair[1], pair[0])
        impaired = any(link.mean_loss or link.jitter or link.duplicate for link in (there, back))
        return not impaired and not any(self._controls(pair))

    def _controls(self, pair: Pair) -> list[QueueControl]:
        """Of the queues on the way of a pair, those that drop or mark before they are full."""
        source, target = (self._plans[name] for name in pair)
        queues = [peer.control for peer in source.peers if peer.site == pair[1]] + [target.control_down]
        queues += [
            queue_control(link.queue, self._topology.core_queue(link), link.rate)
            for link in self._topology.core_of(*pair)
        ]
        return [control for control in queues if control is not None]

    def _echo_pace(self, pairs: Sequence[Pair], budget: ProbeBudget) -> tuple[float, int]:
        """Seconds between the echoes of a pair, and how many.

        Echoes are spaced by the size of the network, and by its jitter, which close packets would see less of.
        """
        jitters = [link.jitter for pair in pairs for link in self._both_ways(pair) if link.jitter is not None]
        spread = max((jitter.spread for jitter in jitters if not jitter.reorder), default=0.0)
        interval = max(budget.interval, len(pairs) / ECHOES_PER_SECOND, 2 * spread)
        return interval, 5 * budget.echoes if jitters else budget.echoes

    def _both_ways(self, pair: Pair) -> tuple[Link, Link]:
        return self._topology.link(*pair), self._topology.link(pair[1], pair[0])

    def _echoes(self, pairs: Sequence[Pair], budget: ProbeBudget) -> tuple[dict[Pair, list[float]], float]:
        """Round trips by pair, and the spacing of packets on a link: each way carries echoes and answers to others."""
        interval, echoes = self._echo_pace(pairs, budget)
        waits: list[tuple[str, list[str], PendingAnswer[RoundTrips]]] = []
        times: dict[Pair, list[float]] = {}
        for source in dict.fromkeys(a for a, _ in pairs):
            targets = [b for a, b in pairs if a == source]
            patience = max(self._topology.rtt(source, b) for b in targets) * 1.5 + 0.5
            addresses = tuple(self._plans[b].address for b in targets)
            future = self._links[source].request(Echo(addresses, echoes, interval, patience))
            waits.append((source, targets, future))
        for source, targets, future in waits:
            answer = wait([future], 60 + interval * echoes)[0]
            for target, answered in zip(targets, answer.echoes, strict=True):
                found = [took for _, took in answered if took is not None]
                # The first echo of a fresh pair meets cold caches.
                times[source, target] = found[1:] if len(found) > 2 else found
        return times, interval / 2

    def _rounds(self, pairs: Sequence[Pair], *, both_ways: bool) -> list[list[Pair]]:
        """Pairs whose streams can be sent at once: they share no access link, and the host can carry them."""
        return [
            group
            for together in disjoint_rounds(pairs, both_ways=both_ways, core=self._core_names)
            for group in self._affordable(together)
        ]

    def _core_names(self, pair: Pair) -> list[str]:
        return [link.name for link in self._topology.core_of(*pair)]

    def _measure(
        self, pairs: Sequence[Pair], design: Callable[[Pair], tuple[ProbeStream, float]], *, both_ways: bool
    ) -> dict[Pair, _Counted]:
        found: dict[Pair, _Counted] = {}
        for group in self._rounds(pairs, both_ways=both_ways):
            found |= self._streams({pair: design(pair) for pair in group})
        return found

    def _affordable(self, pairs: list[Pair]) -> list[list[Pair]]:
        groups: list[list[Pair]] = []
        left = 0.0
        for pair in pairs:
            weight = self._topology.rate(*pair) * (12 if self._plans[pair[0]].segmented else 1)
            if not groups or weight > left:
                groups.append([])
                left = AT_ONCE
            groups[-1].append(pair)
            left -= weight
        return groups

    def _streams(self, streams: Mapping[Pair, tuple[ProbeStream, float]]) -> dict[Pair, _Counted]:
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
            found[pair] = _Counted(rate, answer.sent, report)
        return found

    def _report(self, pair: Pair, stream: ProbeStream, window: float) -> StreamReceived:
        """The receiver's count, once nothing more arrives."""
        topology = self._topology
        link = topology.link(*pair)
        settle = link.delay + (5 * link.jitter.spread if link.jitter else 0.0) + 0.03
        settle = max(settle, 4 * (topology.transport.mtu + ETHERNET) * 8 / topology.rate(*pair))
        receiver, tail = self._links[pair[1]], self._tail(pair) if stream.kind == "udp" else 0.0
        end = time.monotonic() + settle + 10
        while True:
            quiet = receiver.call(ReadStream(stream.number, window, finish=False)).quiet
            if (quiet is not None and quiet >= settle) or time.monotonic() > end:
                break
            if quiet is None and time.monotonic() > end - 10:
                break
            time.sleep(settle - quiet if quiet is not None else settle)
        return receiver.call(ReadStream(stream.number, window, finish=True, tail=tail))

    def _tail(self, pair: Pair) -> float:
        """Seconds at the end of a stream in which only what jitter has held up still arrives."""
        jitter = self._topology.link(*pair).jitter
        return _LONGEST_JITTER * jitter.spread if jitter is not None else 0.0

    def _pace(self, pair: Pair, seconds: float) -> float:
        """Payload bytes per second of a stream to a downlink or core link that is narrower than what its sender has.

        Somewhat more than it carries, so that it is full, but no more than half its queue takes in these seconds.
        """
        topology = self._topology
        rate, mtu, queue = topology.rate(*pair), topology.transport.mtu, self._distant_queue(pair)
        if not queue:
            return 0.0
        # A managed queue would drop of what waits in it.
        more = 0.0 if self._controls(pair) else min(_MOST_EXCESS, 0.5 * queue * 8 / (rate * seconds))
        return (1 + more) * rate / 8 * datagram(mtu) / (mtu + ETHERNET)

    def _distant_queue(self, pair: Pair) -> int:
        """Bytes of the queue ahead of the bottleneck, where that is not the sender's own: of what may be lost there."""
        topology, (source, target) = self._topology, pair
        rate = topology.rate(*pair)
        if rate in (topology.site(source).up, topology.link(*pair).rate):
            return 0
        queues = [topology.core_queue(link) for link in topology.core_of(*pair) if link.rate == rate]
        if topology.site(target).down == rate:
            queues.append(self._plans[target].queue_down)
        return min(queues)

    def datagrams(self, pair: Pair, budget: ProbeBudget) -> tuple[ProbeStream, float]:
        """A stream of datagrams and the window at its end that is measured. Its bursts must fit the link's queues."""
        rate, mtu = self._topology.rate(*pair), self._topology.transport.mtu
        frame, payload = mtu + ETHERNET, datagram(mtu)
        datagrams = budget.datagrams
        if budget.tcp_window and (loss := self._topology.link(*pair).mean_loss):
            datagrams = max(datagrams, round(60 / loss))  # enough of them lost to tell how many
        window = max(budget.window, min(MOST_SECONDS, datagrams * frame * 8 / rate))
        if (jitter := self._topology.link(*pair).jitter) is not None:  # blurs both ends of the window
            window = max(window, min(MOST_SECONDS, (100 if budget.tcp_window else 40) * jitter.spread))
        if len(self._topology.sites) <= ALL_UP_TO:
            window = max(window, budget.datagrams * frame * 8 / rate)
        source, target = (self._plans[name] for name in pair)
        shared = (self._topology.core_queue(link) for link in self._topology.core_of(*pair))
        own = (peer.queue for peer in source.peers if peer.site == target.site)
        calm = (control.least for control in self._controls(pair) if control.least)
        queue = min(target.queue_down, *own, *shared, *calm)
        batch = max(1, min(60_000 // payload, int(min(rate * 0.002 / 8, queue / 8) / payload), 44))
        room = max(2 * frame, batch * frame)
        seconds, ends = window + budget.lead + self._tail(pair), (source.address, target.address)
        pace = self._pace(pair, seconds)
        return ProbeStream(next(_numbers), "udp", *ends, seconds, payload, batch, room, pace=pace), window

    def _tcp(self, pair: Pair, budget: ProbeBudget) -> tuple[ProbeStream, float]:
        """TCP streams and the window at their end, when slow start is over, and what it lost has been sent again."""
        rate, rtt, mtu = self._topology.rate(*pair), self._topology.rtt(*pair), self._topology.transport.mtu
        assert budget.tcp_window is not None
        window = max(budget.tcp_window, budget.datagrams * (mtu + ETHERNET) * 8 / rate)
        product = bandwidth_delay_product(rate, rtt)
        streams = max(1, min(16, product // 1_000_000))
        doublings = math.log2(max(1.0, product / (streams * 10 * segment(mtu))))
        loaded = rtt + self._distant_queue(pair) * 8 / rate  # what slow start fills there, it loses and sends again
        seconds = window + budget.lead + (doublings + 4) * loaded
        ends = self._plans[pair[0]].address, self._plans[pair[1]].address
        return ProbeStream(next(_numbers), "tcp", *ends, seconds, segment(mtu), streams=streams), window


def budget_of(short: bool) -> ProbeBudget:
    return SHORT_BUDGET if short else FULL_BUDGET
