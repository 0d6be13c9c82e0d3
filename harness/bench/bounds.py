"""How long the failure of each process can go unnoticed: one bound per process, disturbance and stage. Pure.

The runner notices, and then takes the network down within `TEARDOWN_SECONDS`. docs/reliability.md prints this table,
`longhaul bench chaos` divides what it measures by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.cluster.dask_suite import POLL_SECONDS as WORKERS_POLL_SECONDS
from harness.cluster.dask_suite import SCHEDULER_SECONDS
from harness.cluster.remote_cell import POLL_SECONDS as CELL_POLL_SECONDS
from harness.cluster.remote_cell import STOPPED_SECONDS
from harness.run.stall_watch import STALL_SECONDS
from harness.run.worker_group import POLL_SECONDS
from netsim.emulated.agent_client import ANSWER_SECONDS
from netsim.emulated.network import AGENT_START_SECONDS, VERIFY_SECONDS

Stage = Literal["start", "training", "end"]
Disturbance = Literal["SIGKILL", "SIGSTOP"]

STAGES: tuple[Stage, ...] = ("start", "training", "end")
TEARDOWN_SECONDS = {"netns": 15.0, "docker": 40.0, "compose": 15.0}  # of all nodes, on a busy host
WORKER_TTL_SECONDS = 600.0  # distributed.scheduler.worker-ttl is five minutes, and looked at every five minutes
ORPHAN_SECONDS = 10.0  # for everything that a killed runner had started to end by itself


@dataclass(frozen=True)
class Bound:
    """seconds: from the disturbance until it is noticed; None: nobody but the user waits, and nothing fails."""

    process: str
    disturbance: Disturbance
    stage: Stage
    seconds: float | None
    why: str


def bounds() -> tuple[Bound, ...]:
    """Every pair in every stage.

    start: until the runner says go; training: until the first trainer has ended; end: after that.
    """
    stopped = "the runner looks whether it is stopped"
    polled = "the runner looks at every program this often"
    verified = "the runner verifies the network this often, and an agent answers within the rest"
    found: list[Bound] = []

    def add(process: str, disturbance: Disturbance, start: float | None, later: float | None, why: str) -> None:
        found.extend(Bound(process, disturbance, stage, start if stage == "start" else later, why) for stage in STAGES)

    checked = VERIFY_SECONDS + ANSWER_SECONDS
    add("trainer", "SIGKILL", POLL_SECONDS + ANSWER_SECONDS, POLL_SECONDS + ANSWER_SECONDS, polled)
    still = STALL_SECONDS + ANSWER_SECONDS
    add("trainer", "SIGSTOP", still, still, f"{stopped}, and a trainer shows a sign of life each second")
    add("coordinator", "SIGKILL", POLL_SECONDS + ANSWER_SECONDS, POLL_SECONDS + ANSWER_SECONDS, polled)
    add("coordinator", "SIGSTOP", still, still, f"{stopped}; trainers wait for it no longer than for a peer")
    for process in ("agent", "switch", "delay daemon", "prober", "container"):
        add(process, "SIGKILL", AGENT_START_SECONDS + checked, checked, verified)
        if process != "container":
            add(process, "SIGSTOP", AGENT_START_SECONDS + checked, checked, verified)
    add("runner", "SIGKILL", ORPHAN_SECONDS, ORPHAN_SECONDS, "its processes end by themselves")
    add("runner", "SIGSTOP", None, None, "as Ctrl-Z: its processes wait until it is continued or killed")
    gone = "the scheduler misses it, and the cell is run at another host"
    add("Dask worker", "SIGKILL", WORKERS_POLL_SECONDS, WORKERS_POLL_SECONDS, gone)
    add("Dask worker", "SIGSTOP", WORKER_TTL_SECONDS, WORKER_TTL_SECONDS, f"{gone}; worker-ttl of distributed")
    add("runner at a Dask worker", "SIGKILL", CELL_POLL_SECONDS, CELL_POLL_SECONDS, "the Dask worker is its parent")
    still = CELL_POLL_SECONDS + STOPPED_SECONDS
    add("runner at a Dask worker", "SIGSTOP", still, still, "the Dask worker looks whether it is stopped")
    add("Dask scheduler", "SIGKILL", SCHEDULER_SECONDS, SCHEDULER_SECONDS, "the runner waits this long for an answer")
    add("Dask scheduler", "SIGSTOP", SCHEDULER_SECONDS, SCHEDULER_SECONDS, "the runner waits this long for an answer")
    return tuple(found)


def bound_of(process: str, disturbance: str, stage: str) -> float | None:
    """Seconds. Raises KeyError for a pair that is not in the table."""
    for bound in bounds():
        if (bound.process, bound.disturbance, bound.stage) == (process, disturbance, stage):
            return bound.seconds
    raise KeyError((process, disturbance, stage))
