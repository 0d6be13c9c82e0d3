"""The trainers of a run and their coordinator: started, watched, restarted when a fault says so. In the runner."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from harness.elastic.coordinator import CoordinatorJob
from harness.elastic.returns import steps_in
from harness.records.code_hash import code_hash
from harness.records.files import give_folder, remove, write_atomically
from harness.records.layout import RunDirectory
from harness.records.logs import read_worker_log, text_lines
from harness.records.run_record import write_json
from harness.run.stall_watch import STALL_SECONDS, StallWatch
from harness.spec.faults import undisturbed_site
from harness.spec.resolved import ResolvedRun
from harness.worker.data import Dataset
from harness.worker.job import Job
from netsim.emulated.network import Network, Node, NodeProcess
from netsim.errors import LonghaulError
from netsim.library import ROOT
from netsim.timeline import WorkerEvent

POLL_SECONDS = 0.1
VERIFY_SECONDS = 2.0
STOP_SECONDS = 20.0  # for the other trainers to end after the first has
SITE_EVENT_SECONDS = 0.5  # for the timeline to report what it has just done
START_SECONDS = 300.0  # for the trainers to be built and the store to stand


class EventSink(Protocol):
    def add(self, kind: str, **facts: Any) -> None: ...

    def add_at(self, when: float, kind: str, **facts: Any) -> None: ...


class WorkerGroup:
    """One trainer per node. `absent`: ranks that the run ended without."""

    def __init__(
        self, run: ResolvedRun, run_id: str, directory: Path, network: Network, dataset: Dataset, events: EventSink
    ) -> None:
        self._spec, self._run_id, self._directory = run.spec, run_id, directory
        self._network, self._dataset, self._events = network, dataset, events
        self._files = RunDirectory(directory)
        self._sites = [site.name for site in network.topology.sites]
        self.declares_faults = run.declares_faults
        self._stalls = StallWatch(self._files, run.spec.faults)
        self._processes: dict[int, NodeProcess] = {}
        self._restarts = [0] * len(self._sites)
        self._returns: dict[int, float] = {}  # when a dead trainer is to be started again, monotonic
        self._crashed: set[int] = set()  # ranks whose programs the timeline has ended
        self._site_events: deque[WorkerEvent] = deque()  # from the timeline's thread
        self._drained: dict[int, int] = {}  # entries of each worker's log that are in the events
        self._coordinator: NodeProcess | None = None
        self._store: Node | None = None
        self.absent: set[int] = set()

    def start(self, resume_from: int) -> None:
        if self.declares_faults:
            name = undisturbed_site(self._network.topology)
            self._store = next(node for node in self._network.nodes if node.site == name)
            job = CoordinatorJob(spec=self._spec, directory=self._directory, address=self._store.mgmt_address)
            write_json(self._files.membership, job)
            argv = [sys.executable, "-m", "harness.elastic.coordinator", str(self._files.membership)]
            write_atomically(self._files.membership_log, b"", owner=self._store.user)
            self._coordinator = self._store.start(argv, self._environment(), self._files.membership_log)
        for rank in range(len(self._sites)):
            self._launch(rank, resume_from)
        self._events.add("trainers")

    def wait_until_ready(self) -> None:
        """All trainers are built and the store stands; nobody's timeout is spent on somebody else's start."""
        end = time.monotonic() + START_SECONDS
        waiting = {rank: self._files.worker(rank).ready for rank in self._processes}
        store = self._files.membership_log
        while waiting or not (self._coordinator is None or "generation" in " ".join(text_lines(store))):
            for rank, process in self._processes.items():
                if (code := process.poll()) is not None:
                    raise LonghaulError(f"training failed: rank {rank} (exit {code}): {self._why(rank)}")
            if self._coordinator is not None and self._coordinator.poll() is not None:
                raise LonghaulError(f"the coordinator did not start: {last_line(store)}")
            if time.monotonic() > end:
                raise LonghaulError(f"ranks {sorted(waiting)} were not ready within {START_SECONDS:.0f} s")
            waiting = {rank: ready for rank, ready in waiting.items() if not ready.exists()}
            time.sleep(POLL_SECONDS)

    def site_event(self, event: WorkerEvent) -> None:
        """Called from the timeline's thread when it has done something to a site."""
        self._site_events.append(event)

    def wait(self) -> None:
        """Until all trainers have ended well. One that fails undeclared ends the run, as does a network that broke."""
        verified = time.monotonic()
        deadline: float | None = None
        while True:
            self._drain_logs()
            self._drain_site_events()
            codes = {rank: process.poll() for rank, process in self._processes.items()}
            for rank, code in codes.items():
                if code and rank not in self.absent:
                    self._on_worker_death(rank, code)
                elif code is None and self._stalls.silent_seconds(rank) > STALL_SECONDS:
                    raise LonghaulError(
                        f"training failed: rank {rank} has shown no sign of life for {STALL_SECONDS:g} s: "
                        "its process is stopped, or its host is overloaded"
                    )
            done = [rank for rank, code in codes.items() if code == 0]
            left = [rank for rank in codes if rank not in done and rank not in self.absent]
            if self._coordinator is not None and self._coordinator.poll() is not None:
                why = last_line(self._files.membership_log)
                raise LonghaulError(f"the coordinator ended: {why}")
            if not left and (done or not self._returns):
                self._drain_logs()
                if not done:
                    raise LonghaulError("training failed: no site is left")
                return
            if done:
                deadline = deadline or time.monotonic() + STOP_SECONDS
                if time.monotonic() > deadline:
                    self._kill_stragglers(left)
            else:
                self._restart_due()
            if time.monotonic() - verified > VERIFY_SECONDS:
                self._network.verify()
                verified = time.monotonic()
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        for process in [*self._processes.values(), *([self._coordinator] if self._coordinator else [])]:
            if process.poll() is None:
                process.kill()
        for worker in self._files.workers():
            give_folder(worker.path, None, 0o755)  # from now on a record that anybody may read

    def _launch(self, rank: int, resume_from: int = 0) -> None:
        node = self._network.nodes[rank]
        job = Job(
            spec=self._spec,
            run_id=self._run_id,
            rank=rank,
            wan_addresses=tuple(n.wan_address for n in self._network.nodes),
            control_addresses=tuple(n.mgmt_address for n in self._network.nodes),
            directory=self._directory,
            shard=self._dataset.shards[rank],
            held_out=self._dataset.held_out,
            resume_from=resume_from,
            code=code_hash(self._spec.method),
            restarts=self._restarts[rank],
            store=self._store.mgmt_address if self._store else None,
        )
        give_folder(job.files.path, node.user, 0o700)
        remove(job.files.ready)
        if not self._restarts[rank]:
            remove(job.files.ended)
        self._stalls.launched(rank)
        write_json(job.files.job, job)
        argv = [sys.executable, "-m", "harness.worker_main", str(job.files.job)]
        self._processes[rank] = node.start(argv, self._environment(), job.files.log)

    def _environment(self) -> Mapping[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "HOME": str(self._directory),
            "USER": "trainer",  # a number without a name in containers
        }

    def _on_worker_death(self, rank: int, code: int) -> None:
        """A trainer has ended with an error: as declared, or the run has failed."""
        if any(event.site == self._sites[rank] for event in self._network.topology.timeline.site_events()):
            time.sleep(SITE_EVENT_SECONDS)
            self._drain_site_events()
        last: dict[str, Any] = next(reversed(self._worker_log(rank)), {})
        declared = code == -signal.SIGKILL and (rank in self._crashed or last.get("kind") == "crash")
        if not declared:
            self._network.verify()  # a trainer whose node is gone was killed with it: the node is to be named
            raise LonghaulError(f"training failed: rank {rank} (exit {code}): {self._why(rank)}")
        self.absent.add(rank)
        write_atomically(self._files.worker(rank).ended, str(self._restarts[rank] + 1))
        if rank not in self._crashed:
            back_after, length = self._spec.faults[last["fault"]].back_after, self._spec.compute.step_seconds
            if back_after is None:
                return
            if length is None:  # no paced clock: it returns when so much real time has passed
                self._returns[rank] = time.monotonic() + back_after
            elif last["step"] + steps_in(back_after, length) < self._spec.train.steps:
                self._returns[rank] = time.monotonic()  # its program starts while it is away, and waits to be let in

    def _restart_due(self) -> None:
        for rank, due in list(self._returns.items()):
            if rank in self.absent and time.monotonic() >= due:
                del self._returns[rank]
                self.absent.discard(rank)
                self._crashed.discard(rank)
                self._restarts[rank] += 1
                self._events.add("restart", site=self._sites[rank], restarts=self._restarts[rank])
                self._launch(rank)

    def _drain_site_events(self) -> None:
        while self._site_events:
            event = self._site_events.popleft()
            rank = self._sites.index(event.site)
            self._events.add(event.kind, site=event.site)
            if event.kind == "crash":
                self._crashed.add(rank)
            elif event.kind in ("pause", "resume"):
                self._stalls.freeze(rank, event.kind == "pause")
            elif event.kind == "restart":
                self._returns[rank] = time.monotonic()

    def _kill_stragglers(self, late: list[int]) -> None:
        if not self.declares_faults:
            raise LonghaulError(f"ranks {late} did not end within {STOP_SECONDS:.0f} s of the others")
        for rank in late:
            self._events.add("left behind", site=self._sites[rank])
            self._processes[rank].kill()
            self.absent.add(rank)

    def _drain_logs(self) -> None:
        """Copy what the workers have logged into the run's events."""
        if not self.declares_faults:
            return
        for rank, site in enumerate(self._sites):
            entries = self._worker_log(rank)
            for entry in entries[self._drained.get(rank, 0) :]:
                facts = {name: value for name, value in entry.items() if name not in ("when", "kind", "site")}
                self._events.add_at(entry["when"], entry["kind"], site=site, rank=rank, **facts)
            self._drained[rank] = len(entries)

    def _worker_log(self, rank: int) -> list[dict[str, Any]]:
        return read_worker_log(self._files.worker(rank).worker_log)

    def _why(self, rank: int) -> str:
        return last_line(self._files.worker(rank).log)


@contextmanager
def start_worker_group(
    run: ResolvedRun,
    run_id: str,
    directory: Path,
    network: Network,
    dataset: Dataset,
    events: EventSink,
    resume_from: int,
) -> Iterator[WorkerGroup]:
    """All trainers, started at once: they import torch while the links are being checked."""
    made = WorkerGroup(run, run_id, directory, network, dataset, events)
    try:
        made.start(resume_from)
        yield made
    finally:
        made.end()


def last_line(path: Path) -> str:
    lines = text_lines(path)
    return lines[-1] if lines else "it left no message"
