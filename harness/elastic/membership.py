"""A worker's side of the membership protocol, through a store on `mgmt0`. In the trainer process.

The store is torch's TCPStore; torch elastic's rendezvous on top of it does not serve: it renumbers the ranks, admits
whoever comes within a fixed time, and restarts everyone. Here a coordinator (`harness.elastic.coordinator`) decides
each generation from the members' reports, and members keep their ranks and their state.

    wanted/G     somebody needs generation G: all members come and report
    report/G/R   what rank R knows and has       waiting/R    a worker outside that wants in, renewed while it waits
    joiners/G    somebody is in the waiting room admitted/G/R the ticket that was let in
    view/G       who takes part, and from what   latest       the last generation decided
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from torch._C._distributed_c10d import TCPStore

from harness.elastic.views import Report, View
from harness.worker.job import STORE_PORT
from netsim.bounded_call import BoundedCaller
from netsim.documents import Document
from netsim.errors import LonghaulError, PeerError

RENEW_SECONDS = 0.2


class CoordinatorError(LonghaulError):
    """The coordinator does not answer; the run cannot continue."""


class JoinRequest(Document):
    """A worker in the waiting room. ticket: of this wait; turn: how often it has been renewed."""

    ticket: str
    turn: int
    report: Report


class Membership:
    """The store, as a worker uses it. Every call raises CoordinatorError when it is not answered within `timeout`."""

    def __init__(self, address: str, timeout: float) -> None:
        self._caller = BoundedCaller(f"the coordinator at {address}", timeout)
        self._store: TCPStore = self._request(
            lambda: TCPStore(
                address, STORE_PORT, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout)
            )
        )

    def wanted(self, generation: int) -> int | None:
        """The step at which members are to come for `generation`; None if nobody has called for it.

        A member comes once it has done that step, or has failed in it itself: all members then have trained equally
        far, whoever was first to notice.
        """
        key = f"wanted/{generation}"
        if not self._request(lambda: self._store.check([key])):
            return None
        return int(self._request(lambda: self._store.get(key)))

    def joiners(self, generation: int) -> bool:
        """Whether somebody in the waiting room may be let in by `generation`."""
        return bool(self._request(lambda: self._store.check([f"joiners/{generation}"])))

    def call(self, generation: int, report: Report, at: int) -> None:
        """Call for `generation`, members to come at step `at`, and bring the report."""
        self._request(lambda: self._store.set(f"report/{generation}/{report.rank}", report.model_dump_json()))
        first = self._request(lambda: self._store.compare_set(f"wanted/{generation}", "", str(at)))
        if int(first) > at:
            self._request(lambda: self._store.set(f"wanted/{generation}", str(at)))

    def view(self, generation: int) -> View | None:
        """What the coordinator has decided; None if it has not yet."""
        key = f"view/{generation}"
        if not self._request(lambda: self._store.check([key])):
            return None
        return View.model_validate_json(self._request(lambda: self._store.get(key)))

    def latest(self) -> View:
        """The last view that was decided."""
        generation = int(self._request(lambda: self._store.get("latest")))
        view = self.view(generation)
        assert view is not None, "`latest` is set after its view"
        return view

    def enter(self, report: Report, patience: float, reachable: Callable[[tuple[int, ...]], bool]) -> View:
        """Stay in the waiting room until a generation takes this worker in.

        A worker that is due at a later step waits as long as the run goes on.

        The request is renewed only while the members can be reached: members who try to let in somebody behind a
        severed link wait in vain.
        """
        end, turn, ticket = time.monotonic() + patience, 0, secrets.token_hex(8)
        while time.monotonic() < end:
            latest = self.latest()
            if report.rank in latest.returns:
                end = time.monotonic() + patience
            if self._request(partial(self._admitted, latest.generation, report.rank, ticket)):
                return latest
            if reachable(latest.members):
                turn += 1
                self._request(partial(self._renew, JoinRequest(ticket=ticket, turn=turn, report=report)))
            time.sleep(RENEW_SECONDS)
        raise PeerError(f"rank {report.rank} was not let in within {patience:g} s")

    def _renew(self, request: JoinRequest) -> None:
        self._store.set(f"waiting/{request.report.rank}", request.model_dump_json())

    def _admitted(self, generation: int, rank: int, ticket: str) -> bool:
        key = f"admitted/{generation}/{rank}"
        return self._store.check([key]) and self._store.get(key).decode() == ticket

    def _request(self, call: Callable[[], Any]) -> Any:
        try:
            return self._caller.run(call)
        except (RuntimeError, TimeoutError) as error:
            raise CoordinatorError(f"the coordinator is gone: {error}") from None
