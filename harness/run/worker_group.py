"""The trainers of a run and their coordinator: started, watched, restarted when a fault says so. In the runner."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from harness.elastic.coordinator import CoordinatorJob
from harness.elastic.returns import steps_in
from harness.records.files import give_folder, remove, write_atomically
from harness.records.layout import RunDirectory, WorkerId, worker_ids
from harness.records.logs import read_worker_log, text_lines
from harness.records.run_record import write_json
from harness.run.failure import how_it_ended
from harness.run.own_code import OwnCode
from harness.run.stall_watch import STALL_SECONDS, StallWatch, StoppedPrograms
from harness.spec.faults import undisturbed_site
from harness.spec.resolved import ResolvedRun
from harness.worker.data import Dataset
from harness.worker.job import Job
from netsim.emulated.network import Network, Node, NodeProcess
from netsim.errors import LonghaulError
from netsim.library import ROOT
from netsim.timeline import WorkerEvent

POLL_SECONDS = 0.1
STOP_SECONDS = 20.0  # for the other trainers to end after the first has
SITE_EVENT_SECONDS = 0.5  # for the timeline to report what it has just done
START_SECONDS = 300.0  # for the trainers to be built and the store to stand


class EventSink(Protocol):
    def add(self, kind: str, **facts: Any) -> None: ...

    def add_at(self, when: float, kind: str, **facts: Any) -> None: ...


# Of every program of ours in a node that imports torch.
TRAINER_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # the entry point of our backend names a package that nodes do not have
}


class WorkerGroup:
    """The trainers, in the node of their site. `absent`: ranks that the run ended without; then each site has one.

    code: the source's hash. gpus: CUDA_VISIBLE_DEVICES by site, for sites that have any.
    """

    def __init__(
        self,
        run: ResolvedRun,
        run_id: str,
        code: str,
        directory: Path,
        network: Network,
        dataset: Dataset,
        events: EventSink,
        own: OwnCode,
        gpus: Mapping[str, str],
    ) -> None:
        self._spec, self._run_id, self._code, self._directory = run.spec, run_id, code, directory
        self._network, self._dataset, self._events = network, dataset, events
        self._files = RunDirectory(directory)
        self._environment = {
            **TRAINER_ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *own.python_path))),
            "PYTHONUNBUFFERED": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "HOME": str(directory),
            "USER": "trainer",  # a number without a name in containers
        }
        self._sites = [site.name for site in network.topology.sites]
        self._gpus = gpus
        self.declares_faults = run.declares_faults
        self._stalls = StallWatch(self._files, run.spec.faults)
        self._stopped = StoppedPrograms()
        self._workers = worker_ids(run.members)
        self._members = run.members
        self._processes: dict[WorkerId, NodeProcess] = {}
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
            self._coordinator = self._store.start(argv, self._environment, self._files.membership_log)
        for worker in self._workers:
            self._launch(worker, resume_from)
        self._events.add("trainers")

    def wait_until_ready(self) -> None:
        """All trainers are built and the store stands; nobody's timeout is spent on somebody else's start."""
        end = time.monotonic() + START_SECONDS
        waiting = {worker: self._files.worker(*worker).ready for worker in self._processes}
        while waiting or not (self._coordinator is None or any(map(is_view, self._coordinator_lines()))):
            for worker, process in self._processes.items():
                if (code := process.poll()) is not None:
                    raise self._ended(worker, code)
                self._stopped.check(f"training failed: {worker}", process.stopped)
                if self._stalls.seen(worker):
                    self._check_alive(worker)
            self._check_coordinator()
            if time.monotonic() > end:
                raise LonghaulError(f"{listed(waiting)} not ready within {START_SECONDS:.0f} s")
            self._network.verify_when_due()
            waiting = {worker: ready for worker, ready in waiting.items() if not ready.exists()}
            time.sleep(POLL_SECONDS)

    def site_event(self, event: WorkerEvent) -> None:
        """Called from the timeline's thread when it has done something to a site."""
        self._site_events.append(event)

    def wait(self) -> None:
        """Until all trainers have ended well. One that fails undeclared ends the run, as does a network that broke."""
        deadline: float | None = None
        while True:
            self._drain_logs()
            self._drain_site_events()
            codes = {worker: process.poll() for worker, process in self._processes.items()}
            for worker, code in codes.items():
                if code and worker.rank not in self.absent:
                    self._on_worker_death(worker, code)
                elif code is None:
                    self._check_alive(worker)
            done = [worker for worker, code in codes.items() if code == 0]
            left = [worker for worker in codes if worker not in done and worker.rank not in self.absent]
            self._check_coordinator()
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
            self._network.verify_when_due()
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        for process in [*self._processes.values(), *([self._coordinator] if self._coordinator else [])]:
            with suppress(LonghaulError):  # of a node that does not answer: its programs end with it
                if process.poll() is None:
                    process.kill()
        for worker in self._files.workers():
            give_folder(worker.path, None, 0o755)  # from now on a record that anybody may read

    def _launch(self, worker: WorkerId, resume_from: int = 0) -> None:
        rank, node = worker.rank, self._network.nodes[worker.rank]
        job = Job(
            spec=self._spec,
            run_id=self._run_id,
            rank=rank,
            member=worker.member,
            site_workers=self._members[rank],
            wan_addresses=tuple(n.wan_address for n in self._network.nodes),
            control_addresses=tuple(n.mgmt_address for n in self._network.nodes),
            directory=self._directory,
            shard=self._dataset.shards[rank],
            held_out=self._dataset.held_out,
            resume_from=resume_from,
            code=self._code,
            restarts=self._restarts[rank],
            store=self._store.mgmt_address if self._store else None,
        )
        give_folder(job.files.path, node.user, 0o700)
        remove(job.files.ready)
        if not self._restarts[rank]:
            remove(job.files.ended)
        self._stalls.launched(worker)
        write_json(job.files.job, job)
        argv = [sys.executable, "-m", "harness.worker_main", str(job.files.job)]
        environment = {**self._environment, "CUDA_VISIBLE_DEVICES": self._gpus.get(self._sites[rank], "")}
        self._processes[worker] = node.start(argv, environment, job.files.log)

    def _coordinator_lines(self) -> list[str]:
        """What it has said; it runs as the user of its node."""
        return text_lines(self._files.membership_log, self._store.user if self._store else None)

    def _check_coordinator(self) -> None:
        """Nothing ends it or stops it in a sound run."""
        if self._coordinator is None:
            return
        if (code := self._coordinator.poll()) is not None:
            self._network.verify()  # if its node is gone, that is to be named
            said = [line for line in self._coordinator_lines() if not is_view(line)]
            raise LonghaulError(
                f"training failed: the coordinator {how_it_ended(code, said, self._files.membership_log)}"
            )
        self._stopped.check("training failed: the coordinator", self._coordinator.stopped)

    def _ended(self, worker: WorkerId, code: int) -> LonghaulError:
        """The error that a trainer has ended, unless its node is gone: it was killed with it, and the node is named."""
        self._network.verify()
        log = self._files.worker(*worker).log
        return LonghaulError(f"training failed: {worker} {how_it_ended(code, text_lines(log), log)}")

    def _check_alive(self, worker: WorkerId) -> None:
        if self._stalls.silent_seconds(worker) > STALL_SECONDS:
            raise LonghaulError(
                f"training failed: {worker} has shown no sign of life for {STALL_SECONDS:g} s: "
                "its process is stopped, or its host is overloaded"
            )

    def _on_worker_death(self, worker: WorkerId, code: int) -> None:
        """A trainer has ended with an error: as declared, or the run has failed."""
        rank = worker.rank
        if any(event.site == self._sites[rank] for event in self._network.topology.timeline.site_events()):
            time.sleep(SITE_EVENT_SECONDS)
            self._drain_site_events()
        last: dict[str, Any] = next(reversed(self._worker_log(rank)), {})
        declared = code == -signal.SIGKILL and (rank in self._crashed or last.get("kind") == "crash")
        if not declared:
            raise self._ended(worker, code)
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
                self._launch(WorkerId(rank))

    def _drain_site_events(self) -> None:
        while self._site_events:
            event = self._site_events.popleft()
            rank = self._sites.index(event.site)
            self._events.add(event.kind, site=event.site)
            if event.kind == "crash":
                self._crashed.add(rank)
            elif event.kind in ("pause", "resume"):
                self._stalls.freeze(WorkerId(rank), event.kind == "pause")
            elif event.kind == "restart":
                self._returns[rank] = time.monotonic()

    def _kill_stragglers(self, late: list[WorkerId]) -> None:
        if not self.declares_faults:
            raise LonghaulError(f"{listed(late)} did not end within {STOP_SECONDS:.0f} s of the others")
        for worker in late:
            self._events.add("left behind", site=self._sites[worker.rank])
            self._processes[worker].kill()
            self.absent.add(worker.rank)

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


@contextmanager
def started(group: WorkerGroup, resume_from: int) -> Iterator[WorkerGroup]:
    """All trainers, started at once: they import torch while the links are being checked."""
    try:
        group.start(resume_from)
        yield group
    finally:
        group.end()


def listed(workers: Iterable[WorkerId]) -> str:
    return "; ".join(map(str, sorted(workers)))


def is_view(line: str) -> bool:
    """Whether a line of the coordinator's output is a view that it published."""
    return line.startswith('{"generation"')
