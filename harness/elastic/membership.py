"""Who takes part, generation by generation, agreed through a store on `mgmt0`.

The store is torch's TCPStore; torch elastic's rendezvous on top of it does not serve: it numbers the ranks anew, admits
whoever comes within a fixed time, and restarts everyone. Here a keeper (`python -m harness.elastic.membership FILE`,
at a site that nothing stops) decides each generation from the members' reports, and members keep their ranks and their
state.

    wanted/G     somebody needs generation G: all members come and report
    report/G/R   what rank R knows and has       lobby/R      a worker outside that wants in, renewed while it waits
    joiners/G    somebody waits in the lobby     admitted/G/R the visit that was let in
    decision/G   who takes part, and from what   latest       the last generation decided
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import networkx
from torch._C._distributed_c10d import TCPStore

from algorithms.method import find
from harness.records.layout import RunDirectory
from harness.records.run_record import read_json
from harness.spec.run_spec import RunSpec
from harness.worker.job import STORE_PORT
from netsim.documents import Document, validate
from netsim.errors import PeerError

POLL_SECONDS = 0.05
KNOCK_SECONDS = 0.2
GRACE_SECONDS = 2.0  # for members whom nobody reaches to report nevertheless
MEETINGS = 20  # without a step in between, after which a worker gives up
LOBBY_SECONDS = 3.0  # after which a worker that no longer renews its wish is taken to be gone


class Report(Document):
    """What a member brings to a generation. `committed`: the last step whose synchronisation it has the result of."""

    rank: int
    step: int  # done, whole
    committed: int
    suspects: tuple[int, ...] = ()  # whom it could not reach
    checkpoints: tuple[int, ...] = ()  # steps that it can restore


class View(Document):
    """One generation. `behind` take over the state of `authority`, which has done `step`.

    Between two synchronisations members may be some steps apart; `furthest` is the last step that any has done.
    """

    generation: int
    members: tuple[int, ...]
    authority: int
    behind: tuple[int, ...] = ()
    step: int = 0
    furthest: int = 0
    committed: int = 0
    rollback: int | None = None  # the members that are not behind restore this checkpoint first
    lost: tuple[int, ...] = ()  # members before, not any more
    abandoned: str = ""  # why the run cannot go on


class Rules(Document):
    """What the keeper must know of the run; `survives` is the method's word on which sites suffice."""

    spec: RunSpec
    directory: Path
    address: str

    @property
    def world(self) -> int:
        return len(self.spec.topology["sites"])


def decide(
    before: View,
    reports: Mapping[int, Report],
    lobby: Mapping[int, Report],
    after_loss: str,
    survives: Callable[[tuple[int, ...]], bool],
) -> View | None:
    """The next generation; None when those who are there do not suffice. Pure.

    Members who blame each other cannot stay together: the largest group stays that blames none of its own.
    """
    staying = _agreeing(reports)
    joining = tuple(sorted(set(lobby) - set(staying)))
    members = tuple(sorted({*staying, *joining}))
    if not survives(members):
        return None
    lost = tuple(sorted(set(before.members) - set(staying)))
    fields: dict[str, Any] = {"generation": before.generation + 1, "members": members, "lost": lost}
    if not staying or not survives(staying) or (lost and after_loss == "rollback"):
        # Back to the last step that everyone needed can restore. Who is there already need not wait for newcomers.
        needed = staying if staying and survives(staying) else members
        known = {**lobby, **reports}
        step = max(set.intersection(*(set(known[rank].checkpoints) for rank in needed)), default=None)
        if step is None:
            return None
        behind = tuple(rank for rank in members if rank not in needed)
        return View(
            authority=needed[0], behind=behind, step=step, furthest=step, committed=step, rollback=step, **fields
        )
    committed = max(reports[rank].committed for rank in staying)
    authority = next(rank for rank in staying if reports[rank].committed == committed)
    if lost and after_loss == "resync":
        behind = tuple(rank for rank in members if rank != authority)
    else:
        late = {rank for rank in staying if reports[rank].committed < committed}
        behind = tuple(sorted({*joining, *late}))
    step = reports[authority].step
    furthest = max(reports[rank].step for rank in staying if rank not in behind)
    return View(authority=authority, behind=behind, step=step, furthest=furthest, committed=committed, **fields)


def _agreeing(reports: Mapping[int, Report]) -> tuple[int, ...]:
    """The largest set of ranks none of which blames another; of equals the one with the lowest ranks."""
    graph: networkx.Graph[int] = networkx.complete_graph(sorted(reports))
    graph.remove_edges_from((rank, other) for rank, report in reports.items() for other in report.suspects)
    groups = [tuple(sorted(group)) for group in networkx.find_cliques(graph)]
    return min(groups, key=lambda group: (-len(group), group), default=())


class Membership:
    """A worker's side."""

    def __init__(self, address: str, timeout: float) -> None:
        self._timeout = timeout
        try:
            self._store = TCPStore(
                address, STORE_PORT, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout)
            )
        except RuntimeError as error:
            raise PeerError(f"the store at {address} did not answer within {timeout:g} s ({error})") from None

    def wanted(self, generation: int) -> bool:
        return bool(self._ask(lambda: self._store.check([f"wanted/{generation}"])))

    def joiners(self, generation: int) -> bool:
        return bool(self._ask(lambda: self._store.check([f"joiners/{generation}"])))

    def call(self, generation: int, report: Report) -> None:
        """Call for `generation` and bring the report."""
        self._ask(lambda: self._store.set(f"report/{generation}/{report.rank}", report.model_dump_json()))
        self._ask(lambda: self._store.set(f"wanted/{generation}", "1"))

    def decision(self, generation: int, patience: float) -> View:
        """Wait for what the keeper decides."""
        return View.model_validate_json(self._ask(lambda: self._wait(f"decision/{generation}", patience)))

    def enter(self, report: Report, patience: float, reachable: Callable[[tuple[int, ...]], bool]) -> View:
        """Wait outside until a generation takes this worker in. It asks only while it reaches the members, for those
        who try to let in somebody behind a severed link wait in vain.
        """
        end, turn, wish = time.monotonic() + patience, 0, secrets.token_hex(8)
        while time.monotonic() < end:
            latest = int(self._ask(lambda: self._store.get("latest")))
            if self._ask(partial(self._admitted, latest, report.rank, wish)):
                return self.decision(latest, self._timeout)
            if reachable(self.decision(latest, self._timeout).members):
                turn += 1
                self._ask(partial(self._knock, report, wish, turn))
            time.sleep(KNOCK_SECONDS)
        raise PeerError(f"rank {report.rank} was not let in within {patience:g} s")

    def _knock(self, report: Report, wish: str, turn: int) -> None:
        text = json.dumps({"wish": wish, "turn": turn, "report": report.model_dump(mode="json")})
        self._store.set(f"lobby/{report.rank}", text)

    def _admitted(self, generation: int, rank: int, wish: str) -> bool:
        key = f"admitted/{generation}/{rank}"
        return self._store.check([key]) and self._store.get(key).decode() == wish

    def _wait(self, key: str, patience: float) -> bytes:
        self._store.wait([key], timedelta(seconds=patience))
        return self._store.get(key)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as error:
            raise PeerError(f"the store did not answer: {error}") from None


class Coordinator:
    """Hosts the store and decides."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        spec = rules.spec
        method, seed = find(spec.method, spec.options, spec.where, spec.train.optimizer), spec.seed
        self._after_loss = method.after_loss
        self._survives = lambda members: bool(members) and method.survives(spec.model, rules.world, members, seed)
        listener = socket.create_server((rules.address, STORE_PORT))  # on mgmt0 alone, never on the WAN
        self._store = TCPStore(
            rules.address,
            STORE_PORT,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=spec.network.timeout_seconds),
            master_listen_fd=listener.detach(),
        )
        self._now = View(generation=0, members=tuple(range(rules.world)), authority=0)
        self._lobby: dict[int, _Visitor] = {}
        self._admitted: set[str] = set()  # wishes that were granted
        self._since = 0.0  # when the first report to the next generation came
        self._publish(self._now)

    def serve(self) -> None:
        """Until killed."""
        while True:
            self._look()
            time.sleep(POLL_SECONDS)

    def _look(self) -> None:
        wanted, members = self._now.generation + 1, self._now.members
        lobby = self._waiting()
        if lobby and not self._store.check([f"joiners/{wanted}"]):
            self._store.set(f"joiners/{wanted}", "1")
        reports = {rank: report for rank in members if (report := self._read(f"report/{wanted}/{rank}"))}
        gone = {rank for rank in members if rank not in reports and self._ended(rank)}
        if not reports and len(gone) < len(members):
            return
        self._since = self._since or time.monotonic()
        missing = set(members) - set(reports) - gone
        suspects = {rank for report in reports.values() for rank in report.suspects}
        waited, timeout = time.monotonic() - self._since, self._rules.spec.network.timeout_seconds
        if missing and waited < timeout and not (missing <= suspects and waited > GRACE_SECONDS):
            return
        decision = decide(self._now, reports, lobby, self._after_loss, self._survives)
        if decision is None:
            if waited < timeout:
                return  # somebody who is needed may still come
            there = tuple(sorted(reports))
            reason = f"ranks {list(there)} cannot go on without the others, and nobody came within {timeout:g} s"
            decision = View(generation=wanted, members=there, authority=min(there, default=0), abandoned=reason)
        self._publish(decision)

    def _publish(self, decision: View) -> None:
        self._now, self._since = decision, 0.0
        for rank in set(decision.members) & set(self._lobby):
            self._store.set(f"admitted/{decision.generation}/{rank}", self._lobby[rank].wish)
            self._admitted.add(self._lobby.pop(rank).wish)
        self._store.set(f"decision/{decision.generation}", decision.model_dump_json())
        self._store.set("latest", str(decision.generation))
        print(decision.model_dump_json(), flush=True)

    def _read(self, key: str) -> Report | None:
        return Report.model_validate_json(self._store.get(key)) if self._store.check([key]) else None

    def _waiting(self) -> dict[int, Report]:
        """Those in the lobby who are still there."""
        now = time.monotonic()
        for rank in range(self._rules.world):
            if self._store.check([f"lobby/{rank}"]):
                found = json.loads(self._store.get(f"lobby/{rank}"))
                if found["wish"] in self._admitted:
                    continue
                known = self._lobby.get(rank)
                if known is None or (known.wish, known.turn) != (found["wish"], found["turn"]):
                    report = Report.model_validate(found["report"])
                    self._lobby[rank] = _Visitor(found["wish"], found["turn"], report, now)
        return {rank: one.report for rank, one in self._lobby.items() if now - one.heard < LOBBY_SECONDS}

    def _ended(self, rank: int) -> bool:
        return RunDirectory(self._rules.directory).worker(rank).ended.exists()


@dataclass
class _Visitor:
    """A worker in the lobby. wish: of this visit; turn: how often it has renewed it; heard: when, monotonic."""

    wish: str
    turn: int
    report: Report
    heard: float


def main() -> None:
    path = Path(sys.argv[1])
    Coordinator(validate(Rules, read_json(path), str(path))).serve()


if __name__ == "__main__":
    main()
