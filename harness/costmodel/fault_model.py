"""What misfortune is expected to cost a run: the same quantities as `harness.run.fault_cost.FaultCost`, before the run.

The run is walked through step by step with a clock for each worker. Whoever is struck stops, stands still, is slow or
is cut off; the others notice where they next wait for it; then `harness.elastic.membership.decide`, which decides in a
run, decides here. What follows from that (steps made anew, transfers broken off, states handed on) is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.costmodel.fault_terms import Broken, FaultEvent, FaultModelInputs, broken_off, touches
from harness.elastic.views import MAX_GENERATIONS, Report, View, decide
from netsim.traffic import Transfer, among


@dataclass(frozen=True)
class PredictedFaultCost:
    """Fields as in `harness.run.fault_cost.FaultCost`. `abandoned`: why the run cannot go on, if it cannot."""

    generations: int
    tokens_lost: int
    bytes_repeated: int
    bytes_caught_up: int
    detection_seconds: tuple[float, ...]
    recovery_seconds: tuple[float, ...]
    wall_seconds: float
    abandoned: str = ""

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def simulate_faults(terms: FaultModelInputs, strikes: Sequence[FaultEvent]) -> PredictedFaultCost:
    """The toll of `strikes` on the run. Pure."""
    walk = _Simulation(terms, strikes)
    walk.run()
    return PredictedFaultCost(
        generations=walk.now.generation + 1,
        tokens_lost=walk.lost * terms.tokens_per_step,
        bytes_repeated=walk.repeated,
        bytes_caught_up=walk.caught_up,
        detection_seconds=tuple(walk.detection),
        recovery_seconds=tuple(walk.recovery),
        wall_seconds=max(walk.workers[rank].clock for rank in walk.now.members),
        abandoned=walk.abandoned,
    )


@dataclass
class _Worker:
    """clock: seconds since training began. made: the steps in which it trained, that count so far."""

    clock: float = 0.0
    committed: int = 0
    made: list[int] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    died: float | None = None  # until that is noticed
    silent_until: float = 0.0  # the end of its last pause
    paused: int = 0  # the step of that pause
    back: float | None = None  # when it asks to be let in, if it is outside and will
    interrupted: bool = False  # in a step, when it was left out alive


@dataclass
class _UnderWay:
    """A transfer that was released and is due after step `due`; released: when, by the last of its members."""

    due: int
    transfer: Transfer
    released: float


class _Simulation:
    def __init__(self, terms: FaultModelInputs, strikes: Sequence[FaultEvent]) -> None:
        self.terms, self.strikes = terms, strikes
        self.due_at: dict[tuple[int, int | None], list[int]] = {}  # strikes by rank and step; None: by the clock
        for index, strike in enumerate(strikes):
            self.due_at.setdefault((strike.rank, strike.step), []).append(index)
        sites = range(terms.plan.sites)
        without_one = (tuple(rank for rank in sites if rank != lost) for lost in sites)
        fragile = terms.after_loss == "rollback" or not all(map(terms.survives, without_one))
        self.workers = [_Worker(checkpoints=[0] if fragile else []) for _ in sites]
        self.now = View(generation=0, members=tuple(sites), source=0)
        self.step = 0  # done by all members
        self.cold = True
        self.parted: list[tuple[int, int]] = []  # who have thrown each other out
        self.under_way: list[_UnderWay] = []
        self.sent: dict[int, int] = {}  # payload bytes of the steps that count so far
        self.struck: set[int] = set()
        self.struck_at: list[float] = []  # not noticed yet
        self.lost = self.repeated = self.caught_up = 0
        self.detection: list[float] = []
        self.recovery: list[float] = []
        self.meetings = 0  # since the last step that all members finished
        self.abandoned = ""

    def run(self) -> None:
        while self.step < self.terms.plan.steps and not self.abandoned:
            if self._somebody_waits():
                self._meet(None)
            else:
                self._advance(self.step + 1)
        for rank, worker in enumerate(self.workers):
            if rank not in self.now.members:  # what it did since it last synchronised went with it
                self._lose(worker, worker.committed)

    @property
    def there(self) -> list[int]:
        """The members that live."""
        return [rank for rank in self.now.members if self.workers[rank].died is None]

    def _clocks(self, ranks: Iterable[int]) -> list[float]:
        return [self.workers[rank].clock for rank in ranks]

    def _deaths(self) -> list[float]:
        """Of members whose end is not noticed yet."""
        return [worker.died for worker in self.workers if worker.died is not None]

    def _lose(self, worker: _Worker, after: int) -> None:
        """Whatever the worker did after a step was in vain."""
        self.lost += sum(step > after for step in worker.made)
        worker.made = [step for step in worker.made if step <= after]

    def _somebody_waits(self) -> bool:
        """Whether a site outside is seen between two rounds, where it may be let in."""
        if not any(self.workers[rank].committed == self.step for rank in self.there):
            return False
        outside = (worker.back for rank, worker in enumerate(self.workers) if rank not in self.now.members)
        return any(back is not None and back <= min(self._clocks(self.there)) for back in outside)

    # --- a step -------------------------------------------------------------------------------------------------------

    def _advance(self, step: int) -> None:
        terms = self.terms
        for rank in self.there:
            pace = self._strike(rank, step)
            self.workers[rank].clock += terms.step_seconds * pace
        begun = [rank for rank in self.there if rank in terms.plan.active(step)]
        if not self.there:
            self.step = step - 1
            self._meet(None)
            return
        self._release(step)
        due = [each for each in self.under_way if each.due <= step]
        if (noticed := self._missed(due)) is not None:
            self._meet(noticed, step, begun, [self._broken(each) for each in due])
            return
        self._finish(due)
        released = terms.plan.at(step)
        self.sent[step] = sum(among(transfer, self.now.members).payload_bytes for transfer in released)
        for rank in self.there:
            if any(rank in transfer.members for transfer in released):
                self.workers[rank].committed = step
            if rank in begun:
                self.workers[rank].made.append(step)
        self.step, self.meetings = step, 0
        self._evaluate_and_save(step)

    def _strike(self, rank: int, step: int) -> float:
        """Everything that befalls `rank` in this step; how many times as long the step takes."""
        worker, pace = self.workers[rank], 1.0
        for index in (*self.due_at.get((rank, step), ()), *self.due_at.get((rank, None), ())):
            strike = self.strikes[index]
            if strike.kind == "straggle":
                pace *= strike.factor
                continue
            soon = worker.clock + self.terms.step_seconds
            if worker.died is not None or index in self.struck or (strike.at is not None and strike.at > soon):
                continue
            self.struck.add(index)
            when = max(worker.clock, strike.at or 0.0)
            if strike.at is None:  # what happens at a second is in no worker's diary
                self.struck_at.append(when)
            if strike.kind == "crash":
                worker.died = when
                worker.back = None if strike.lasts is None else when + strike.lasts + self.terms.start
                self._lose(worker, worker.committed)
            elif strike.kind == "pause":
                worker.clock += strike.lasts or 0.0
                worker.silent_until, worker.paused = worker.clock, step
            elif others := [other for other in self.now.members if other != rank]:
                self.parted.append((others[0], rank))
        return pace

    def _release(self, step: int) -> None:
        for transfer in self.terms.plan.at(step):
            present = among(transfer, self.now.members)
            if len(present.members) > 1:
                released = max(self._clocks(rank for rank in present.members if rank in self.there), default=0.0)
                self.under_way.append(_UnderWay(step + transfer.overlap, present, released))

    def _missed(self, due: Sequence[_UnderWay]) -> float | None:
        """When somebody first notices that another member of a transfer fails; None if all goes well."""
        terms, found = self.terms, []
        for each in due:
            transfer, algorithm = each.transfer, terms.resolve(each.transfer)
            here = [rank for rank in transfer.members if rank in self.there]
            for other in transfer.members:
                died = self.workers[other].died
                if died is not None and died < each.released + self._duration(each):
                    found += self._clocks(rank for rank in here if touches(transfer, algorithm, rank, other))
            for pair in self.parted:
                if set(pair) <= set(here) and touches(transfer, algorithm, *pair):
                    found.append(min(self._clocks(pair)))
            if here and max(self._clocks(here)) > min(self._clocks(here)) + terms.timeout:
                found.append(min(self._clocks(here)) + terms.timeout)
        return min(found, default=None)

    def _broken(self, each: _UnderWay) -> Broken:
        ends = {rank: self.workers[rank].died for rank in each.transfer.members}
        missed = (rank for rank, died in ends.items() if died is not None and died < each.released)
        return Broken(each.transfer, frozenset(missed))

    def _duration(self, each: _UnderWay) -> float:
        """Of a transfer that runs beside later steps; one that its step waits for is never done before the step is."""
        if not each.transfer.overlap:
            return float("inf")
        return self.terms.exposed((replace(each.transfer, overlap=0),), False)

    def _finish(self, due: Sequence[_UnderWay]) -> None:
        """All members of what is due have it."""
        self.under_way = [each for each in self.under_way if each not in due]
        if not due:
            return
        ranks = sorted({rank for each in due for rank in each.transfer.members if rank in self.there})
        end = max(self._clocks(ranks)) + self.terms.exposed(tuple(each.transfer for each in due), self.cold)
        self.cold = False
        for rank in ranks:
            self.workers[rank].clock = end

    def _evaluate_and_save(self, step: int) -> None:
        """What ends a step now and then, for all workers together and over the control network."""
        terms = self.terms
        evaluates = step % terms.evaluate_every == 0 or step == terms.plan.steps
        saves = bool(terms.checkpoint_every) and step % terms.checkpoint_every == 0 and step < terms.plan.steps
        if not evaluates and not saves:
            return
        spent = terms.evaluation_seconds if evaluates else 0.0
        clocks = self._clocks(self.there)
        if len(self.there) < len(self.now.members):
            self._meet(min(clocks) + spent)
        elif max(clocks) > min(clocks) + terms.timeout:
            self._meet(min(clocks) + spent + terms.timeout)
        else:
            for rank in self.there:
                worker = self.workers[rank]
                worker.clock = max(clocks) + spent + (terms.checkpoint_seconds if saves else 0.0)
                if saves:
                    worker.checkpoints = [*worker.checkpoints, step][-2:]
            return
        if self.step == terms.plan.steps:  # the last evaluation is made anew
            for rank in self.there:
                self.workers[rank].clock += spent

    # --- a meeting ----------------------------------------------------------------------------------------------------

    def _meet(
        self,
        noticed: float | None,
        step: int | None = None,
        begun: Sequence[int] = (),
        broken: Sequence[Broken] = (),
    ) -> None:
        """noticed: when a loss was, if it is for one.  step: the one that it interrupted, with those who had `begun` it
        and the transfers that it broke off.
        """
        self.meetings += 1
        if self.meetings > MAX_GENERATIONS:
            self.abandoned = f"no progress in {MAX_GENERATIONS} generations"
            return
        silent = {rank for rank in self.there if noticed is not None and self.workers[rank].silent_until > noticed}
        came = [rank for rank in self.there if rank not in silent]
        at = max([*self._clocks(came), *self._deaths(), noticed or 0.0])
        if noticed is not None:
            self._notice(noticed)
            at = max(at, self._patience(noticed, at, silent))
        decision, at = self._decide(came, at, at if noticed is None else noticed)
        if decision is None:
            return
        if step is not None:
            dead = [rank for rank in self.now.members if rank not in self.there]
            self.repeated += broken_off(self.terms, broken, silent, dead, self.parted)
        self._part_with(decision, at, silent, begun if step is not None else ())
        for rank in decision.members:
            self._become(rank, decision, step if rank in begun else None)
        self.repeated += sum(self.sent.pop(done) for done in list(self.sent) if done > decision.step)
        seconds = 0.0
        if decision.lagging:
            transfers = tuple(self.terms.catch_up(decision.source, decision.lagging, decision.members))
            self.caught_up += sum(transfer.payload_bytes for transfer in transfers)
            seconds = self.terms.exposed(transfers, True)
        end = at + self.terms.rendezvous + 2 * self.terms.round_trip + seconds
        for rank in decision.members:
            self.workers[rank].clock = end
        if noticed is not None:
            self.recovery.append(end - noticed)
        self.now, self.step = decision, decision.step
        self.parted, self.under_way, self.cold = [], [], True

    def _notice(self, when: float) -> None:
        if earlier := [strike for strike in self.struck_at if strike <= when]:
            self.detection.append(when - max(earlier))
            self.struck_at = [strike for strike in self.struck_at if strike > when]

    def _patience(self, noticed: float, at: float, silent: set[int]) -> float:
        """Until when those who do not report are waited for: not at all if their end is known, which it is no more once
        the program has been started again.
        """
        if silent:
            return min(noticed + self.terms.grace, max(self._clocks(silent)))
        backs = [worker.back for worker in self.workers if worker.died is not None and worker.back is not None]
        again = [back for back in backs if back - self.terms.start <= at]
        return noticed + self.terms.grace if again else at

    def _decide(self, came: Sequence[int], at: float, since: float) -> tuple[View | None, float]:
        """The keeper's decision, and when; none if the run cannot go on."""
        reports = {rank: self._report(rank, self.workers[rank].committed) for rank in came}
        while True:
            outside = [rank for rank in range(len(self.workers)) if rank not in came]
            coming = {rank: back for rank in outside if (back := self.workers[rank].back) is not None}
            lobby = {rank: self._report(rank, -1) for rank, back in coming.items() if back <= at}
            decision = decide(self.now, reports, lobby, self.terms.after_loss, self.terms.survives)
            if decision is not None:
                return decision, at
            later = [back for back in coming.values() if back > at]
            if not later or min(later) > since + self.terms.timeout:
                self.abandoned = f"ranks {sorted(came)} cannot go on without the others"
                return None, at
            at = min(later)

    def _report(self, rank: int, committed: int) -> Report:
        suspects = tuple(sorted({b if a == rank else a for a, b in self.parted if rank in (a, b)}))
        checkpoints = tuple(self.workers[rank].checkpoints)
        return Report(rank=rank, step=self.step, committed=committed, suspects=suspects, checkpoints=checkpoints)

    def _part_with(self, decision: View, at: float, silent: set[int], begun: Sequence[int]) -> None:
        """Who lives and is not taken along asks to be let in again; who has fallen is no member any more.

        Nobody's steps after a checkpoint count when the members go back to it.
        """
        for rank in self.now.members:
            worker = self.workers[rank]
            if worker.died is None and rank not in decision.members:
                worker.back = max(at, worker.clock) if rank in silent else at
                worker.interrupted = rank in begun and rank not in silent
                if rank in silent:  # before its next step it hears that it has been left out
                    worker.made = [made for made in worker.made if made <= worker.paused]
            worker.died = None
        if decision.rollback is not None:
            for rank, worker in enumerate(self.workers):
                if rank not in decision.members or rank in decision.lagging:
                    self._lose(worker, decision.rollback)

    def _become(self, rank: int, decision: View, interrupted: int | None) -> None:
        """What a member goes on from. interrupted: the step that it had begun and nobody finished."""
        worker = self.workers[rank]
        worker.back = None
        if rank in decision.lagging:  # its state is another's now
            self._lose(worker, worker.committed)
            self.lost += interrupted is not None or worker.interrupted
            worker.committed, worker.interrupted = decision.committed, False
        elif decision.rollback is not None:
            self._lose(worker, decision.rollback)
            self.lost += interrupted is not None
            worker.committed = decision.rollback
        elif interrupted is not None and self.terms.after_loss == "redo":
            taken = any(rank in transfer.members for transfer in self.terms.plan.at(interrupted))
            self.lost += taken  # the step is undone, and made anew
