"""The job of one trainer process, as a file in the run's directory. Written by the runner, read by the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.layout import RunDirectory, WorkerDirectory, WorkerId
from harness.spec.run_spec import RunSpec
from netsim.documents import Document

WAN_PORT = 29400
CONTROL_PORT = 29401
STORE_PORT = 29402
LOCAL_PORT = 29403
UNACCOUNTED_SHARE = 0.05  # of wall time, above which the buckets do not explain the run
UNACCOUNTED_SECONDS = 0.1  # below which it is a stall of the host's scheduler or disk between two buckets


class Job(Document):
    """Addresses are by rank. `directory` is the run's, as the node sees it."""

    spec: RunSpec
    run_id: str
    rank: int  # of the site
    member: int = 0  # which of the site's workers; the first leads, and speaks for the site on the WAN
    site_workers: int = 1
    wan_addresses: tuple[str, ...]
    control_addresses: tuple[str, ...]
    directory: Path
    shard: Path
    held_out: Path
    resume_from: int = 0  # step of the checkpoint to go on from; 0: from the start
    code: str = ""  # harness.records.code_hash, of the runner that began the run
    restarts: int = 0  # how often this worker has been started again
    store: str | None = None  # address of the coordinator, when faults are declared

    @property
    def world(self) -> int:
        return len(self.wan_addresses)

    @property
    def leads(self) -> bool:
        return self.member == 0

    @property
    def rank_directory(self) -> Path:
        return self.files.path

    @property
    def run_files(self) -> RunDirectory:
        return RunDirectory(self.directory)

    @property
    def files(self) -> WorkerDirectory:
        """This worker's own."""
        return self.run_files.worker(self.rank, self.member)

    @property
    def checkpoint_owner(self) -> CheckpointOwner:
        return CheckpointOwner.of(self.files, self.spec, self.run_id, self.rank, self.world, self.code)


@dataclass(frozen=True)
class CheckpointOwner:
    """Whose checkpoints they are. Their manifests say so, and none of another run, rank, world or code is restored.

    tokens_per_step: of this worker; more than that per step it cannot have trained on.
    """

    folder: Path
    run: str
    rank: int
    world: int
    code: str
    tokens_per_step: int

    @classmethod
    def of(cls, files: WorkerDirectory, spec: RunSpec, run: str, rank: int, world: int, code: str) -> CheckpointOwner:
        return cls(files.checkpoints, run, rank, world, code, spec.batch(rank) * spec.model.sequence)

    def manifest(self) -> dict[str, Any]:
        return {"run": self.run, "rank": self.rank, "world": self.world, "code": self.code}


class Summary(Document):
    """What a trainer reports when it is done."""

    rank: int
    member: int = 0
    steps: int
    wall_seconds: float
    seconds: dict[str, float]
    unaccounted_seconds: float
    tokens: int
    payload_bytes: int
    wire_bytes_before: int = 0  # sent by the processes that this one went on from
    memory: dict[str, int]
    peak_rss_bytes: int
    peak_device_bytes: int = 0  # of a GPU's memory, as torch counts its tensors
    slot_overruns: int
    final_loss: float | None
    time_to_target_seconds: float | None
    started_at: float  # seconds since the epoch, when the first step began

    @property
    def worker(self) -> WorkerId:
        return WorkerId(self.rank, self.member)

    @property
    def explained(self) -> bool:
        """Whether the time buckets add up to the wall time."""
        return abs(self.unaccounted_seconds) <= max(UNACCOUNTED_SECONDS, UNACCOUNTED_SHARE * self.wall_seconds)

    @property
    def key(self) -> str:
        """In documents."""
        return f"{self.rank}.{self.member}" if self.member else str(self.rank)
