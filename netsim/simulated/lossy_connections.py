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

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from netsim.framing import segment
from netsim.simulated.fair_rates import Flags, Floats, Ints
from netsim.simulated.send_buffers import OWN_QUEUE
from netsim.topology import Transport

Control: TypeAlias = Literal["cubic", "reno", "bbr"]

_DRAWS = 8  # of which means are taken; fewer where there are so many connections that they average out by themselves
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


@dataclass
class Windows:
    """Of many connections, arrays of one shape: segments, and seconds on the clock of whoever sends.

    window, threshold: congestion window, and where slow start ends.  peak: cubic's window at the last loss.  plateau:
    seconds after that loss at which cubic has it again.  since: seconds of sending since then.  mean: the window that
    Reno would have.  used: sent in the round under way, which ends at `end`.  queued: handed over and not followed yet.
    """

    window: Floats
    threshold: Floats
    peak: Floats
    plateau: Floats
    since: Floats
    mean: Floats
    used: Floats
    end: Floats
    queued: Floats

    @classmethod
    def new(cls, shape: tuple[int, ...], initial: float) -> Self:
        """Connections that have sent nothing yet."""
        zeros = [np.zeros(shape) for _ in range(7)]
        return cls(np.full(shape, float(initial)), np.full(shape, np.inf), *zeros)

    def at(self, *index: Ints) -> Windows:
        """Copies of some of them."""
        return Windows(*(part[index] for part in vars(self).values()))

    def of(self, first: int, count: int) -> Windows:
        """Of one pair, so many, as they are."""
        return Windows(*(part[first, :count] for part in vars(self).values()))

    def put(self, changed: Windows, *index: Ints) -> None:
        """Take over what has become of them."""
        for part, values in zip(vars(self).values(), vars(changed).values(), strict=True):
            part[index] = values

    def cut(self, lost: Flags, control: Control) -> None:
        """A round with a loss."""
        if control == "bbr":
            return
        kept, window = _KEPT[control], np.floor(self.window)
        cut = np.maximum(np.floor(window * kept), _LEAST_WINDOW)
        again = window < self.peak  # it lost before it was where it had been: others need room (fast convergence)
        peak = np.where(again, window * (1 + kept) / 2, window)
        self.plateau = np.where(lost, np.cbrt(np.maximum(peak - cut, 0) / CUBIC), self.plateau)
        self.peak = np.where(lost, peak, self.peak)
        self.since = np.where(lost, 0.0, self.since)
        for name in ("window", "threshold", "mean"):
            setattr(self, name, np.where(lost, cut, getattr(self, name)))

    def begin_again(self, timed_out: Flags) -> None:
        """A timeout of what had been sent again."""
        self.window = np.where(timed_out, 1.0, self.window)

    def grow(self, full: Flags, seconds: Floats, round_trip: Floats, control: Control) -> None:
        """A round of so many seconds without a loss, that filled the window."""
        if control == "bbr":
            return
        slow = full & (self.window < self.threshold)
        steady = full & ~slow
        self.since = self.since + steady * seconds
        doubled = np.minimum(self.window + self.used, np.maximum(self.threshold, self.window))
        if control == "reno":
            further = self.window + 1
        else:
            kept = _KEPT[control]
            self.mean = self.mean + steady * 3 * (1 - kept) / (1 + kept)
            target = self.peak + CUBIC * (self.since + round_trip - self.plateau) ** 3
            risen = self.window + np.clip(target - self.window, 0, self.window / 2)
            further = np.maximum(risen, self.mean)
        self.window = np.where(slow, doubled, np.where(steady, further, self.window))

    @property
    def room(self) -> Floats:
        """Segments of a round, in whole packets."""
        room: Floats = np.maximum(_PACKET * np.floor(self.window / _PACKET), np.minimum(np.floor(self.window), 1))
        return room

    def pace(self, round_trip: float | Floats) -> Floats:
        """Segments per second at which the kernel lets packets go, and by which the executor chooses a connection."""
        early, late = _PACED
        return np.where(self.window < self.threshold / 2, early, late) * self.window / round_trip


def follow(
    windows: Windows,
    segments: Floats,
    begun: Floats,
    loss: Floats,
    round_trip: Floats,
    rate: Floats,
    control: Control,
    random: np.random.Generator,
) -> Floats:
    """(messages,) when the last segment of each leaves that arrives; `windows`, one connection each, move on.

    segments: of each message.  begun: when it may begin.  rate: segments per second that its links leave it.
    """
    behind = windows.queued > _NONE  # another message follows at once
    left, leaves = np.maximum(np.where(behind, np.floor(segments), np.ceil(segments)), 1), begun.copy()
    round_trip = np.maximum(round_trip, _LEAST_ROUND)
    waiting = windows.end > begun
    windows.used = np.where(waiting, windows.used, 0.0)
    start = np.where(waiting, windows.end - np.maximum(round_trip, windows.used / rate), begun)
    burst = np.maximum(start, begun)  # when what a round sends begins to leave
    again = np.zeros(len(segments), dtype=bool)  # all that is left has been sent before
    active = left > 0
    while active.any():
        room, pace = windows.room, windows.pace(round_trip)
        sent = np.where(active, np.minimum(left, np.maximum(room - windows.used, 0)), 0.0)
        lost = random.binomial(sent.astype(np.int64), loss).astype(float)
        ends = active & (sent == left)
        repeats = ends & (lost > 0)
        last = repeats & ~behind & (random.random(len(left)) * sent < lost)  # the last segment is among the lost
        unseen = last & ((lost == 1) | (lost == sent))
        windows.used = windows.used + sent
        lasts = np.maximum(round_trip, windows.used / rate)
        # The first packet leaves at once; the last one, to which something might be added, waits as long for more room.
        spread = sent / np.where(sent > _PACKET, np.minimum(rate, pace), rate)
        windows.end = np.where(active, start + lasts, windows.end)
        leaves = np.where(active & (sent > 0), burst + spread, leaves)
        windows.grow(active & (lost == 0) & (windows.used >= room), lasts, round_trip, control)
        windows.cut(lost > 0, control)
        windows.begin_again(unseen & again)
        # Of segments that are all sent before the first of them is missed, the last that is lost is sent again last.
        place = np.where(last, 1.0, random.random(len(left)) ** (1 / np.maximum(lost, 1)))
        timer = LEAST_TIMEOUT + np.where(lost < sent, round_trip, 0.0)
        shown = np.minimum(_SHOWN * spread / np.maximum(sent, 1), _REORDERING * round_trip)
        own = np.where(rate < pace, OWN_QUEUE / rate, 0.0)
        missed = burst + place * spread + round_trip + own + np.where(unseen, timer, shown)
        again, left = ends, left - sent + lost
        active = left > 0
        start = np.where(active, np.where(unseen, missed, windows.end), start)
        burst = np.where(repeats, missed, start)
        windows.used = np.where(active, 0.0, windows.used)
    return leaves


class LossyConnections:
    """The connections of every pair of sites, of which those that lose packets are asked for.

    streams: (pairs,) connections of each.  draw: which it is of the `draws` whose mean is taken.
    """

    def __init__(self, streams: Ints, transport: Transport, draw: int = 0) -> None:
        shape = len(streams), int(streams.max())
        self.draws = min(_DRAWS, max(1, _STATES // (shape[0] * shape[1])))
        self._streams, self._control = streams, transport.congestion_control
        self._segment = segment(transport.mtu)
        self._random = np.random.default_rng(draw)
        self._windows = Windows.new(shape, transport.initial_window)

    def choose(self, pairs: Ints, sizes: Floats, now: float, round_trip: Floats) -> Ints:
        """(messages,) the connection that each is handed to, in their order: as in the executor, the one that would
        deliver it first, behind what it has not been acknowledged yet.

        sizes: bytes.
        """
        windows, streams = self._windows, self._streams[pairs]
        chosen = np.zeros(len(pairs), dtype=np.int64)
        trips = np.maximum(round_trip, _LEAST_ROUND)
        for index, (pair, segments, count, trip) in enumerate(
            zip(pairs.tolist(), (sizes / self._segment).tolist(), streams.tolist(), trips.tolist(), strict=True)
        ):
            if count > 1:
                mine = windows.of(pair, count)
                ahead = mine.queued + mine.used * (mine.end > now)
                chosen[index] = int(((ahead + segments) / mine.pace(trip)).argmin())
            windows.queued[pair, chosen[index]] += segments
        return chosen

    def limits(self, pairs: Ints, chosen: Ints, sizes: Floats, now: float, round_trip: Floats) -> Floats:
        """(messages,) bytes/s at which windows let go messages that begin now, if none is lost and links are wide."""
        mine, segments = self._windows.at(pairs, chosen), sizes / self._segment
        mine.queued = mine.queued - segments
        none, wide, begun = np.zeros(len(pairs)), np.full(len(pairs), np.inf), np.full(len(pairs), now)
        leaves = follow(mine, segments, begun, none, round_trip, wide, self._control, self._random)
        return sizes / np.maximum(leaves - now, _LEAST_ROUND)

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
        """(messages,) when the last byte of each has left for good; each is another pair's, on the connection that was
        chosen.

        sizes: bytes.  begun: when they began to leave.  rate: bytes/s that the links left them.
        """
        windows, segments = self._windows, sizes / self._segment
        mine = windows.at(pairs, chosen)
        mine.queued = mine.queued - segments
        rate = rate / self._segment
        leaves = follow(mine, segments, begun, loss, round_trip, rate, self._control, self._random)
        windows.put(mine, pairs, chosen)
        return leaves

    def move(self, seconds: float) -> None:
        """The clock begins so much later."""
        self._windows.end -= seconds
