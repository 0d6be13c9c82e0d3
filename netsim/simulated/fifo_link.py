"""One link that serves jobs first in, first out: the queueing rule of the executor, for workers that are all alike.

A job's bytes are queued when it is released. They leave at goodput, arrive a delay later, and are queued again for the
next hop, piece by piece as they arrive. So a later release overtakes what an earlier job has still in the air, as it
does in `harness.transport.peers` and `netsim.simulated.fabric`, which have one queue per pair of workers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from netsim.simulated.load import Calendar, Load, Pattern, Phase, QueuedTransfer


@dataclass(frozen=True)
class Rates:
    """At one point of a sweep. step: seconds of a local step, of which `backward` is the share of the backward pass.
    goodput: bytes/s.  hop: seconds of a message besides its bytes.  transfer, byte: seconds at the host for each
    transfer and each byte.
    """

    step: float
    backward: float
    goodput: float
    hop: float
    transfer: float = 0.0
    byte: float = 0.0


class _Ticket:
    """A job under way. open: parts of it that have not made their last hop; finish: when the last of them had."""

    __slots__ = ("finish", "job", "open")

    def __init__(self, job: QueuedTransfer) -> None:
        self.job, self.open, self.finish = job, 1, 0.0


class FifoLink:
    """Times are seconds since the run began; calls must come in the order of time."""

    def __init__(self, rates: Rates) -> None:
        self.g, self.d = rates.goodput, rates.hop
        self.free = 0.0
        # (when the first piece arrives, when the last one has, bytes, job, hops made), in order of arrival
        self.air: deque[tuple[float, float, float, _Ticket, int]] = deque()

    def release(self, when: float, job: QueuedTransfer) -> _Ticket:
        """Queue a job's bytes at `when`."""
        air = self.air
        while air and air[0][0] < when:
            begin, end, size, ticket, hops = air.popleft()
            if end > when:  # what arrives later is queued behind the job
                rest = size * (end - when) / (end - begin)
                air.appendleft((when, end, rest, ticket, hops))
                ticket.open += 1
                self._serve(begin, when, size - rest, ticket, hops)
                break
            self._serve(begin, end, size, ticket, hops)
        ticket = _Ticket(job)
        self._serve(when, when, job.hop_bytes, ticket, 0)
        return ticket

    def finish(self, ticket: _Ticket) -> float:
        """When the job is done, if nothing is released before."""
        while ticket.open:
            self._serve(*self.air.popleft())
        return ticket.finish

    def _serve(self, begin: float, end: float, size: float, ticket: _Ticket, hops: int) -> None:
        job, g = ticket.job, self.g
        start = self.free if self.free > begin else begin
        piece = min(job.piece, size) / g
        left = start + size / g
        if end > begin and end + piece > left:
            left = end + piece
        self.free = left
        if hops + 1 < job.hops:
            self.air.append((start + piece + self.d, left + self.d, size, ticket, hops + 1))
            return
        tail, delays = job.tail
        ticket.open -= 1
        ticket.finish = max(ticket.finish, left + tail / g + (1 + delays) * self.d)

    def state(self, now: float) -> tuple[float, ...]:
        """What of the past matters after `now`."""
        under_way = (value - now for begin, end, *_ in self.air for value in (begin, end))
        return (max(0.0, self.free - now), *under_way, *(size for _, _, size, *_ in self.air))

    def shift(self, seconds: float) -> None:
        """Let as many seconds pass without any change."""
        self.free += seconds
        self.air = deque((begin + seconds, end + seconds, *rest) for begin, end, *rest in self.air)  # type: ignore[misc]
        for ticket in {id(entry[3]): entry[3] for entry in self.air}.values():
            ticket.finish += seconds


def exposed_once(pattern: Pattern, rates: Rates) -> float:
    """Seconds that a step waits for a pattern that is apart from all others."""
    link = FifoLink(rates)
    done = max((end for _, end in _run(pattern, link, 0.0, rates)), default=0.0)
    return max(0.0, done - rates.step)


def _run(pattern: Pattern, link: FifoLink, began: float, rates: Rates) -> list[tuple[float, float]]:
    """Release a chain and follow it to its end: (due, when it is done) of its jobs. began: of the step."""
    now, done = began, []
    for phase in pattern.phases:
        done = _finished(phase, link, _released(phase, link, now, began, rates), now, began, rates)
        now = max([now, *(end for _, end in done)])
    return done


def _moment(ready: float, now: float, began: float, rates: Rates) -> float:
    return max(now, began + rates.step * (1 - rates.backward + rates.backward * ready))


def _released(phase: Phase, link: FifoLink, now: float, began: float, rates: Rates) -> list[_Ticket]:
    return [link.release(_moment(job.ready, now, began, rates), job) for job in phase.jobs]


def _finished(
    phase: Phase, link: FifoLink, tickets: Sequence[_Ticket], now: float, began: float, rates: Rates
) -> list[tuple[float, float]]:
    local = phase.transfers * rates.transfer + phase.size * rates.byte
    done = [(ticket.job.due, link.finish(ticket) + local) for ticket in tickets]
    floor = [
        _moment(ready, now, began, rates) + size / rates.goodput + delays * rates.hop
        for ready, size, delays in phase.floor
    ]
    return [*done, *((0.0, end + local) for end in floor)]


@dataclass
class _Pending:
    """Jobs of a step's last phase, waited for in or after step `due`."""

    due: int
    phase: Phase
    tickets: list[_Ticket]
    now: float
    began: float


class _Walk:
    """A run whose transfers overlap, step by step with a release or a deadline."""

    def __init__(self, load: Load, calendar: Calendar, rates: Rates) -> None:
        self.load, self.calendar, self.rates = load, calendar, rates
        self.link = FifoLink(rates)
        self.now, self.step = 0.0, 1  # the next step, and when it begins
        self.pending: list[_Pending] = []

    def run(self) -> float:
        """Seconds of the whole run."""
        calendar = self.calendar
        period, first, last = calendar.period, calendar.first, calendar.last
        steps, which, kinds = calendar.steps.tolist(), calendar.which.tolist(), calendar.kinds
        seen: dict[int, tuple[tuple[float, ...], float]] = {}  # by step of the period: the state one period ago
        index = 0
        while index < len(steps):
            step = steps[index]
            if period and first <= step <= last - period:
                self._to(step)
                place = step % period
                if repeats := self._repeats(step, seen.get(place)):
                    # As many periods of equal length have passed: go on with the release that is due then.
                    self._shift(repeats, repeats * (self.now - seen[place][1]))
                    index += repeats * (bisect_left(steps, step + period, index) - index)
                    first = last  # once is enough
                    continue
                seen[place] = self._state(), self.now
            self._to(step)
            self._release(kinds[which[index]])
            index += 1
        self._to(self.load.steps + 1)
        for p in self.pending:  # nothing is left to hide behind
            ends = _finished(p.phase, self.link, p.tickets, p.now, p.began, self.rates)
            self.now = max([self.now, *(end for _, end in ends)])
        return self.now

    def _state(self) -> tuple[float, ...]:
        finishes = (
            value
            for p in self.pending
            for ticket in p.tickets
            for value in (p.due - self.step, ticket.finish - self.now if ticket.finish else 0.0)
        )
        return (*self.link.state(self.now), *finishes)

    def _repeats(self, step: int, before: tuple[tuple[float, ...], float] | None) -> int:
        """How many more periods will pass like the one that has just ended; 0 if it differed from the one before."""
        if before is None:
            return 0
        state, slack = self._state(), 1e-9 * max(1.0, self.rates.step)
        if len(state) != len(before[0]) or any(
            abs(a - b) > max(slack, 1e-9 * abs(a)) for a, b in zip(state, before[0], strict=True)
        ):
            return 0
        return (self.calendar.last - step) // self.calendar.period

    def _shift(self, repeats: int, seconds: float) -> None:
        steps = repeats * self.calendar.period
        self.link.shift(seconds)
        in_air = {id(entry[3]) for entry in self.link.air}
        for pending in self.pending:
            pending.due, pending.now, pending.began = (
                pending.due + steps,
                pending.now + seconds,
                pending.began + seconds,
            )
            for ticket in pending.tickets:
                if id(ticket) not in in_air:
                    ticket.finish += seconds
        self.now, self.step = self.now + seconds, self.step + steps

    def _to(self, step: int) -> None:
        """Pass the steps before `step`, waiting where results are due."""
        while self.pending and (due := min(p.due for p in self.pending)) < step:
            self._compute(due - self.step)
            self._pass_step()
        self._compute(step - self.step)

    def _compute(self, steps: int) -> None:
        self.now, self.step = self.now + steps * self.rates.step, self.step + steps

    def _release(self, chains: tuple[int, ...]) -> None:
        self._pass_step(chains)

    def _pass_step(self, chains: tuple[int, ...] = ()) -> None:
        """One step: waits in its forward pass, releases in its backward pass, waits at its end."""
        rates, step = self.rates, self.step
        ending = [p for p in self.pending if p.due == step]
        within = [p for p in ending if any(ticket.job.due for ticket in p.tickets)]
        self._forward(within)
        began = self.now - rates.step * (1 - rates.backward)  # as if the forward pass had not waited
        after = [p for p in ending if p not in within]
        self.pending = [p for p in self.pending if p.due != step]
        for chain in chains:
            pattern = self.load.patterns[chain]
            pending = self._start(pattern, began)
            (after if pending.due == step else self.pending).append(pending)
        self.now += rates.step * rates.backward
        for p in after:
            ends = _finished(p.phase, self.link, p.tickets, p.now, p.began, rates)
            self.now = max([self.now, *(end for _, end in ends)])
        self.step += 1

    def _start(self, pattern: Pattern, began: float) -> _Pending:
        """Release a chain; all but its last phase are followed to their ends at once."""
        rates, now = self.rates, began
        for phase in pattern.phases[:-1]:
            done = _finished(phase, self.link, _released(phase, self.link, now, began, rates), now, began, rates)
            now = max([now, *(end for _, end in done)])
        last = pattern.phases[-1]
        tickets = _released(last, self.link, now, began, rates)
        within = any(job.due for job in last.jobs)  # waited for in the forward pass of the step after
        due = self.step + pattern.overlap + (1 if within else 0)
        return _Pending(min(due, self.load.steps) if not within else due, last, tickets, now, began)

    def _forward(self, pending: list[_Pending]) -> None:
        forward, passed = self.rates.step * (1 - self.rates.backward), 0.0
        waits = [wait for p in pending for wait in _finished(p.phase, self.link, p.tickets, p.now, p.began, self.rates)]
        for due, end in sorted(waits):
            self.now, passed = max(self.now + (due - passed) * forward, end), due
        self.now += (1 - passed) * forward


def overlapped_seconds(load: Load, rates: Rates) -> float:
    """Seconds of a whole run whose transfers of several steps may be under way together."""
    assert load.calendar is not None
    return _Walk(load, load.calendar, rates).run()
