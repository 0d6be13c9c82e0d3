"""TCP connections that lose packets, round trip by round trip, as drawn: what their windows let through, and when.

The mean rate of a long connection (Mathis et al. 1997) says little about a collective. Its messages are of one or two
dozen segments, as many as the window that losses leave, so that a message takes a few round trips of one connection,
drawn again each time; and a phase waits for the latest of its messages. So each message is followed as Cardwell, Savage
and Anderson (INFOCOM 2000) and Padhye, Firoiu, Towsley and Kurose (SIGCOMM 1998) follow a connection, in rounds:

    a round sends what its window has room for, in whole packets of two segments (a sender waits until there is room for
    one: Linux's `tcp_tso_should_defer`, `tcp_min_tso_segs`), no faster than it is paced (`tcp_update_pacing_rate`), and
    lasts a round trip, or as long as the link takes to carry it;
    each segment is lost with probability p; those lost are sent again in the next round (RFC 6675, RFC 8985);
    a round with a loss cuts the window once, to 0.7 of it (cubic, RFC 9438) or half (reno), rounded down;
    a round that filled the window without a loss lets it grow: by what was acknowledged in slow start, else by the
    cubic function or as much as Reno's mean would, whichever is more (RFC 9438, section 4.3); Reno by one;
    a loss among the last that there is to send is noticed when three later segments have arrived, or a quarter of a
    round trip later (RFC 8985, section 6.2), and what is sent again stands behind the sender's own queue;
    where only the last segment of a message is lost, or all that a round has sent, nothing behind it shows that, and
    it is sent again after another `LEAST_TIMEOUT` (RFC 8985, section 7.2; Linux's `tcp_schedule_loss_probe` adds the
    least timeout where one segment is outstanding, and never waits longer than for the timeout itself); where others
    of its round arrive, their acknowledgement sets that timer anew, a round trip later; where this happens to what
    is sent for the second time, the window begins at one segment again (RFC 5681, section 3.1). Where another message
    of the connection follows, nothing is last.

Windows outlast the pause between two messages, as nodes have `tcp_slow_start_after_idle` at zero. Losses are
independent of each other, also where the link's own come in bursts, and none come from queues. BBR's window does not
depend on losses (Cardwell et al. 2016).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from netsim.collectives import first_to_deliver
from netsim.framing import segment
from netsim.simulated.fair_rates import Floats, Ints
from netsim.simulated.send_buffers import OWN_QUEUE
from netsim.topology import Transport

Control: TypeAlias = Literal["cubic", "reno", "bbr"]

_DRAWS = 16  # of which means are taken; fewer where there are so many connections that they average out by themselves
_STATES = 1 << 12  # connections, all draws together
LEAST_TIMEOUT = 0.2  # seconds; Linux's TCP_RTO_MIN
CUBIC = 0.4  # segments per second cubed: C of RFC 9438
_KEPT = {"cubic": 0.7, "reno": 0.5}  # of the window after a loss
_LEAST_WINDOW = 2.0
_LEAST_ROUND = 1e-4  # seconds; of a link without delay
_NONE = 0.5  # segments; what is handed over and followed again leaves a rounding error
_PACED = 2.0, 1.2  # windows per round trip that Linux lets go in slow start, and after it
_PACKET = 2  # segments; more where so many leave in a millisecond, and are a small part of a window then
_SHOWN = 3  # later segments that show a loss
_REORDERING = 1 / 4  # of a round trip, after which it is one however few they are


class Path(NamedTuple):
    """What a message meets. loss: probability that a segment is lost.  round_trip: seconds.  rate: segments per second
    that its links leave it."""

    loss: float
    round_trip: float
    rate: float


@dataclass(slots=True)
class Connection:
    """One connection: segments, and seconds on the clock of whoever sends.

    window, threshold: congestion window, and where slow start ends.  peak: cubic's window at the last loss.  plateau:
    seconds after that loss at which cubic has it again.  since: seconds of sending since then.  mean: the window that
    Reno would have.  used: sent in the round under way, which ends at `end`.  queued: handed over and not followed yet.
    """

    control: Control
    window: float
    threshold: float = inf
    peak: float = 0.0
    plateau: float = 0.0
    since: float = 0.0
    mean: float = 0.0
    used: float = 0.0
    end: float = 0.0
    queued: float = 0.0

    def cut(self) -> None:
        """A round with a loss."""
        if self.control == "bbr":
            return
        kept, window = _KEPT[self.control], floor(self.window)
        cut = max(floor(window * kept), _LEAST_WINDOW)
        again = window < self.peak  # it lost before it was where it had been: others need room (fast convergence)
        self.peak = window * (1 + kept) / 2 if again else window
        self.plateau = (max(self.peak - cut, 0.0) / CUBIC) ** (1 / 3)
        self.since = 0.0
        self.window = self.threshold = self.mean = cut

    def grow(self, seconds: float, round_trip: float) -> None:
        """A round of so many seconds without a loss, that filled the window."""
        if self.control == "bbr":
            return
        if self.window < self.threshold:
            self.window = min(self.window + self.used, self.threshold)
            return
        self.since += seconds
        if self.control == "reno":
            self.window += 1
            return
        kept = _KEPT[self.control]
        self.mean += 3 * (1 - kept) / (1 + kept)
        target = self.peak + CUBIC * (self.since + round_trip - self.plateau) ** 3
        risen = self.window + min(max(target - self.window, 0.0), self.window / 2)
        self.window = max(risen, self.mean)

    @property
    def room(self) -> float:
        """Segments of a round, in whole packets."""
        return max(_PACKET * floor(self.window / _PACKET), min(floor(self.window), 1))

    def pace(self, round_trip: float) -> float:
        """Segments per second at which the kernel lets packets go, and by which the executor chooses a connection."""
        early, late = _PACED
        return (early if self.window < self.threshold / 2 else late) * self.window / round_trip

    def send(self, segments: float, begun: float, path: Path, random: np.random.Generator) -> float:
        """When the last segment of a queued message leaves that arrives. begun: when it may begin."""
        self.queued -= segments
        behind = self.queued > _NONE  # another message follows at once
        left, leaves = max(floor(segments) if behind else ceil(segments), 1), begun
        loss, round_trip, rate = path.loss, max(path.round_trip, _LEAST_ROUND), path.rate
        start = begun
        if self.end > begun:
            start = self.end - max(round_trip, self.used / rate)
        else:
            self.used = 0.0
        burst = max(start, begun)  # when what a round sends begins to leave
        again = False  # all that is left has been sent before
        while left > 0:
            room, pace = self.room, self.pace(round_trip)
            sent = min(left, max(int(room - self.used), 0))
            lost = int(random.binomial(sent, loss)) if sent and loss else 0
            ends = sent == left
            repeats = ends and lost > 0
            last = repeats and not behind and random.random() * sent < lost  # the last segment is among the lost
            unseen = last and lost in (1, sent)
            self.used += sent
            lasts = max(round_trip, self.used / rate)
            # The first packet leaves at once; the last one, to which something might be added, waits for more room.
            spread = sent / (min(rate, pace) if sent > _PACKET else rate)
            self.end = start + lasts
            if sent:
                leaves = burst + spread
            if lost:
                self.cut()
            elif self.used >= room:
                self.grow(lasts, round_trip)
            if unseen and again:  # a timeout of what had been sent again
                self.window = 1.0
            again, left = ends, left - sent + lost
            if not left:
                break
            start = self.end
            if repeats:
                # Of segments that are all sent before the first of them is missed, the last lost is sent again last.
                place = 1.0 if last else random.random() ** (1 / lost)
                timer = LEAST_TIMEOUT + (round_trip if lost < sent else 0.0)
                shown = min(_SHOWN * spread / sent, _REORDERING * round_trip)
                own = OWN_QUEUE / rate if rate < pace else 0.0
                burst = burst + place * spread + round_trip + own + (timer if unseen else shown)
                if unseen:
                    start = burst
            else:
                burst = start
            self.used = 0.0
        return leaves


class LossyConnections:
    """The connections of every pair of sites, of which those that lose packets are asked for.

    streams: (pairs,) connections of each.  draw: which it is of the `draws` whose mean is taken.
    """

    def __init__(self, streams: Ints, transport: Transport, draw: int = 0) -> None:
        self.draws = min(_DRAWS, max(1, _STATES // (len(streams) * int(streams.max()))))
        self._streams, self._transport = streams.tolist(), transport
        self._segment = segment(transport.mtu)
        self._random = np.random.default_rng(draw)
        self._of: dict[int, list[Connection]] = {}  # by pair
        self._origin = 0.0  # of the clock of who asks, on that of the connections

    def choose(self, pairs: Ints, sizes: Floats, now: float, round_trip: Floats) -> Ints:
        """(messages,) the connection that each is handed to, in their order: as in the executor, the one that would
        deliver it first, behind what it has not been acknowledged yet.

        sizes: bytes.
        """
        chosen, now = [], now + self._origin
        for pair, size, trip in zip(pairs.tolist(), sizes.tolist(), round_trip.tolist(), strict=True):
            mine, segments, trip = self._mine(pair), size / self._segment, max(trip, _LEAST_ROUND)
            ahead = [one.queued + (one.used if one.end > now else 0.0) for one in mine]
            place = first_to_deliver(ahead, [one.pace(trip) for one in mine], segments)
            mine[place].queued += segments
            chosen.append(place)
        return np.array(chosen, dtype=np.int64)

    def limits(self, pairs: Ints, chosen: Ints, sizes: Floats, now: float, round_trip: Floats) -> Floats:
        """(messages,) bytes/s at which windows let go messages that begin now, if none is lost and links are wide."""
        found, begun = [], now + self._origin
        for pair, place, size, trip in zip(
            pairs.tolist(), chosen.tolist(), sizes.tolist(), round_trip.tolist(), strict=True
        ):
            one = copy(self._mine(pair)[place])
            leaves = one.send(size / self._segment, begun, Path(0.0, trip, inf), self._random)
            found.append(size / max(leaves - begun, _LEAST_ROUND))
        return np.array(found)

    def send(
        self,
        pairs: Ints,
        chosen: Ints,
        sizes: Floats,
        begun: Floats,
        loss: Floats,
        round_trip: Floats,
        rate: Floats,
    ) -> Floats:
        """(messages,) when the last byte of each has left for good, on the connection that was chosen.

        sizes: bytes.  begun: when they began to leave.  rate: bytes/s that the links left them.
        """
        found = []
        paths = zip(loss.tolist(), round_trip.tolist(), (rate / self._segment).tolist(), strict=True)
        messages = zip(pairs.tolist(), chosen.tolist(), sizes.tolist(), begun.tolist(), strict=True)
        for (pair, place, size, began), path in zip(messages, paths, strict=True):
            one, begin = self._mine(pair)[place], began + self._origin
            found.append(one.send(size / self._segment, begin, Path(*path), self._random) - self._origin)
        return np.array(found)

    def move(self, seconds: float) -> None:
        """The clock of who asks begins so much later."""
        self._origin += seconds

    def _mine(self, pair: int) -> list[Connection]:
        if (mine := self._of.get(pair)) is None:
            control, window = self._transport.congestion_control, float(self._transport.initial_window)
            mine = self._of[pair] = [Connection(control, window) for _ in range(self._streams[pair])]
        return mine
