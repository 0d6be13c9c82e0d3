"""The coordinator process (`python -m harness.elastic.coordinator FILE`): hosts the store and decides every view.

It runs at a site that nothing stops, listens on mgmt0 alone, and ends with the run.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import TCPStore

from algorithms.method import find
from harness.elastic.decision import decide
from harness.elastic.membership import JoinRequest
from harness.elastic.returns import Absence, absence, declared_absence
from harness.elastic.views import GRACE_SECONDS, POLL_SECONDS, RETURN_SECONDS, Report, View
from harness.records.layout import RunDirectory
from harness.records.run_record import read_json
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.job import STORE_PORT
from netsim.documents import Document, validate

WAITING_SECONDS = 3.0  # after which a worker that no longer renews its request is taken to be gone


class CoordinatorJob(Document):
    """What the coordinator must know of the run; the spec's method decides which sites suffice."""

    spec: RunSpec
    directory: Path
    address: str

    @property
    def world(self) -> int:
        return len(self.spec.topology["sites"])


@dataclass
class _Waiting:
    """A worker in the waiting room. heard: when it last renewed its request, monotonic."""

    request: JoinRequest
    heard: float


class Coordinator:
    """Reads reports and join requests from the store, and publishes the view that follows from them."""

    def __init__(self, job: CoordinatorJob) -> None:
        self._job, spec = job, job.spec
        method, seed = find(spec.method, spec.options, spec.where, spec.train.optimizer), spec.seed
        self._after_loss = method.after_loss
        self._survives = lambda members: bool(members) and method.survives(spec.model, job.world, members, seed)
        listener = socket.create_server((job.address, STORE_PORT))  # on mgmt0 alone, never on the WAN
        self._store = TCPStore(
            job.address,
            STORE_PORT,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=spec.network.timeout_seconds),
            master_listen_fd=listener.detach(),
        )
        self._view = View(generation=0, members=tuple(range(job.world)), source=0)
        self._waiting: dict[int, _Waiting] = {}
        self._admitted: set[str] = set()  # tickets
        self._since = 0.0  # when the first report to the next generation came
        self._files = RunDirectory(job.directory)
        resolved = ResolvedRun.of(spec)
        self._plan, self._timeline = resolved.plan, resolved.topology.timeline
        self._restarts = [0] * job.world  # of the processes that are members
        self._joined = [0] * job.world  # the step at which each became a member
        self._absences: dict[int, Absence] = {}  # of those outside for a declared fault
        self._publish(self._view)

    def serve(self) -> None:
        """Until killed."""
        while True:
            self._poll()
            time.sleep(POLL_SECONDS)

    def _poll(self) -> None:
        upcoming, members = self._view.generation + 1, self._view.members
        waiting = self._waiting_room()
        if any(map(self._unscheduled, waiting)) and not self._store.check([f"joiners/{upcoming}"]):
            self._store.set(f"joiners/{upcoming}", "1")
        reports = {rank: report for rank in members if (report := self._report(upcoming, rank))}
        ended = {rank for rank in members if rank not in reports and self._ended(rank)}
        if not reports and len(ended) < len(members):
            return
        self._since = self._since or time.monotonic()
        missing = set(members) - set(reports) - ended
        suspects = {rank for report in reports.values() for rank in report.suspects}
        waited, timeout = time.monotonic() - self._since, self._job.spec.network.timeout_seconds
        if missing and waited < timeout and not (missing <= suspects and waited > GRACE_SECONDS):
            return
        front = max((report.step + report.interrupted for report in reports.values()), default=0)
        absences = self._all_absences(reports, front)
        due = {rank for rank, absence in absences.items() if self._due(rank, absence, front)}
        if due - set(waiting) and waited < RETURN_SECONDS:
            return  # their programs are still starting
        joining = {rank: report for rank, report in waiting.items() if rank not in absences or rank in due}
        view = decide(self._view, reports, joining, self._after_loss, self._survives)
        if view is None:  # nobody makes steps until those who are needed are back, so their time is real time
            away = {rank: absence.seconds for rank, absence in absences.items() if absence.step is not None}
            back = {rank: report for rank, report in waiting.items() if waited >= away.get(rank, 0.0)}
            view = decide(self._view, reports, back, self._after_loss, self._survives)
            patience = max(
                [timeout, *(seconds + RETURN_SECONDS for seconds in self._declared_to_return(reports, away))]
            )
            if view is None and waited < patience:
                return
        if view is None:
            present = tuple(sorted(reports))
            reason = f"ranks {list(present)} cannot continue without the others, and nobody came within {patience:g} s"
            view = View(generation=upcoming, members=present, source=min(present, default=0), abandoned=reason)
        self._publish(self._scheduled(view, reports, front, due))

    def _unscheduled(self, rank: int) -> bool:
        """Whether a worker in the waiting room is let in as soon as members can come, not at a step.

        Not a member whose program is there again before anybody has missed it: the meeting for its loss decides.
        """
        if rank in self._absences:
            return False
        crashed = absence(self._job.spec, self._plan, rank, self._joined[rank], self._plan.steps)
        return rank not in self._view.members or crashed is None

    def _due(self, rank: int, away: Absence, front: int) -> bool:
        """Whether a worker is let in at step `front`; a member only if it has crashed: others are parted with first."""
        known = rank in self._absences or away.kind == "crash"
        return known and away.step is not None and away.step <= front

    def _declared_to_return(self, reports: Mapping[int, Report], away: Mapping[int, float]) -> list[float]:
        """How long each is away who is to come back, however long its program takes to start then."""
        missing = [rank for rank in range(self._job.world) if rank not in reports and rank not in away]
        unscheduled = [declared_absence(self._job.spec, self._timeline, rank) for rank in missing]
        return [*away.values(), *(seconds for seconds in unscheduled if seconds is not None)]

    def _all_absences(self, reports: Mapping[int, Report], front: int) -> dict[int, Absence]:
        """Of those who are absent already and of the members who do not report."""
        found = dict(self._absences)
        for rank in set(self._view.members) - set(reports):
            if (explained := absence(self._job.spec, self._plan, rank, self._joined[rank], front)) is not None:
                found[rank] = explained
        return found

    def _scheduled(self, view: View, reports: Mapping[int, Report], front: int, due: Set[int]) -> View:
        """The view with the steps at which those who are not in it return."""
        for rank in set(self._view.members) - set(view.members):
            explained = absence(self._job.spec, self._plan, rank, self._joined[rank], front)
            if explained is not None:
                self._absences[rank] = explained
        for rank in view.members:
            self._absences.pop(rank, None)
            if rank not in self._view.members or rank not in reports:
                self._joined[rank] = max(front, view.step)
        for rank in due - set(view.members):
            del self._absences[rank]  # did not come when it was due: let in when it asks
        returns = {rank: a.step for rank, a in self._absences.items() if a.step is not None}
        return view.model_copy(update={"returns": returns})

    def _publish(self, view: View) -> None:
        self._view, self._since = view, 0.0
        for rank in set(view.members) & set(self._waiting):
            request = self._waiting.pop(rank).request
            ticket, self._restarts[rank] = request.ticket, request.report.restarts
            self._store.set(f"admitted/{view.generation}/{rank}", ticket)
            self._admitted.add(ticket)
        self._store.set(f"view/{view.generation}", view.model_dump_json())
        self._store.set("latest", str(view.generation))
        print(view.model_dump_json(), flush=True)

    def _report(self, generation: int, rank: int) -> Report | None:
        key = f"report/{generation}/{rank}"
        return Report.model_validate_json(self._store.get(key)) if self._store.check([key]) else None

    def _waiting_room(self) -> dict[int, Report]:
        """The reports of those in the waiting room who are still there."""
        now = time.monotonic()
        for rank in range(self._job.world):
            if self._store.check([f"waiting/{rank}"]):
                request = JoinRequest.model_validate_json(self._store.get(f"waiting/{rank}"))
                known = self._waiting.get(rank)
                if request.ticket not in self._admitted and (known is None or known.request != request):
                    self._waiting[rank] = _Waiting(request, now)
        return {r: one.request.report for r, one in self._waiting.items() if now - one.heard < WAITING_SECONDS}

    def _ended(self, rank: int) -> bool:
        """Whether the process that is the member is no more; a later one of the same rank may be starting."""
        try:
            processes = int(self._files.worker(rank).ended.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return False
        return processes > self._restarts[rank]


def main() -> None:
    path = Path(sys.argv[1])
    Coordinator(validate(CoordinatorJob, read_json(path), str(path))).serve()


if __name__ == "__main__":
    main()
