"""Agreeing on the next generation: report, wait for the view, or wait outside to be let in. In the trainer process."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from harness.elastic.connections import reachable
from harness.elastic.membership import Membership
from harness.elastic.returns import declared_absence
from harness.elastic.views import MAX_GENERATIONS, RETURN_SECONDS, Report, View
from harness.records.logs import WorkerLog
from harness.worker.job import Job
from netsim.errors import LonghaulError, PeerError
from netsim.timeline import Timeline

POLL_SECONDS = 0.05
PROBE_AFTER_SECONDS = 1.0  # a decision that takes longer waits for somebody
WAITING_TIMEOUTS = 10  # how many timeouts a worker stays in the waiting room


class Rendezvous:
    """Knows the present view, and how to get to the next. Every wait in it ends.

    view: of the generation that this worker is, or was last, a member of.
    """

    def __init__(self, job: Job, timeline: Timeline, membership: Membership, log: WorkerLog) -> None:
        self._job, self._membership, self._log = job, membership, log
        self._timeout = job.spec.network.timeout_seconds
        self._attempts = 0  # since the last step
        self._longest_absence = max(declared_absence(job.spec, timeline, rank) or 0.0 for rank in range(job.world))
        self._at = 0  # the step at which the others are to come
        self._own = Report(rank=job.rank, step=0, committed=0)  # the last that was brought
        self.view = View(generation=0, members=tuple(range(job.world)), source=0)

    def due(self, step: int, lets_in: bool) -> bool:
        """Whether this member is to come to the next rendezvous after `step`.

        lets_in: workers may be let in after this step.
        """
        wanted = self._membership.wanted(self.view.generation + 1)
        if wanted is not None and step >= wanted:
            return True
        if not lets_in:
            return False
        return any(step >= due for due in self.view.returns.values()) or self._membership.joiners(
            self.view.generation + 1
        )

    def step_done(self) -> None:
        """The generation has come to something."""
        self._attempts = 0

    def call(self, error: PeerError | None, report: Callable[[tuple[int, ...]], Report]) -> None:
        """Call for the next generation and report to it.

        error: why, if something failed; report: from the ranks that this worker suspects. Raises LonghaulError when too
        many generations in a row came to nothing.
        """
        self._attempts += 1
        if self._attempts > MAX_GENERATIONS:
            raise LonghaulError(f"no progress in {MAX_GENERATIONS} generations; the last failed for: {error}")
        upcoming = self.view.generation + 1
        suspects = suspects_of(error, self._membership.wanted(upcoming) is not None)
        evidence = suspects if error is not None and error.corrupt else ()
        own = report(suspects).model_copy(update={"evidence": evidence})
        kind = "called" if error is None else "detected"
        self._log.add(kind, generation=upcoming, step=own.step, reason=str(error or ""), blamed=suspects)
        self._own, self._at = own, own.step + own.interrupted
        if error is not None and error.late:
            self._at = 0  # a peer that is only late is met halfway
        self._membership.call(upcoming, own, self._at)

    def next_view(self) -> View | None:
        """Wait for the view that was called for; None if this worker is left out of it.

        Raises LonghaulError when the run cannot continue.
        """
        upcoming, began = self.view.generation + 1, time.monotonic()
        probe = began + PROBE_AFTER_SECONDS
        while (view := self._membership.view(upcoming)) is None:
            if time.monotonic() > began + 3 * self._timeout + RETURN_SECONDS + self._longest_absence:
                raise LonghaulError(f"the coordinator did not decide generation {upcoming}")
            time.sleep(POLL_SECONDS)
            if time.monotonic() > probe and set(self._own.suspects) - set(self._own.healed):
                self._report_healed(upcoming)
                probe = time.monotonic() + PROBE_AFTER_SECONDS
        if view.abandoned:
            raise LonghaulError(view.abandoned)
        if self._job.rank not in view.members:
            self._log.add("left out", generation=view.generation)
            return None
        self.view = view
        return view

    def enter(self, report: Report) -> View:
        """Wait outside until a view takes this worker in. Raises PeerError when none does."""
        patience = WAITING_TIMEOUTS * self._timeout
        self.view = self._membership.enter(report, patience, partial(reachable, self._job))
        return self.view

    def rollback_of(self, generation: int) -> int | None:
        """The checkpoint that an earlier generation went back to."""
        view = self._membership.view(generation)
        return None if view is None else view.rollback

    def _report_healed(self, upcoming: int) -> None:
        """Tell the coordinator which suspects can be reached again: a partition may have healed since."""
        healed = tuple(rank for rank in self._own.suspects if reachable(self._job, (rank,)))
        if healed != self._own.healed:
            self._own = self._own.model_copy(update={"healed": healed})
            self._membership.call(upcoming, self._own, self._at)


def suspects_of(error: PeerError | None, called: bool) -> tuple[int, ...]:
    """The ranks that an error says cannot be reached.

    Not one that hung up after a rendezvous was called: that is what coming to the rendezvous looks like.
    """
    if error is None or (called and error.hung_up and not error.corrupt):
        return ()
    return tuple(sorted(set(error.ranks)))
