"""Going on where an interrupted run stood: what a checkpoint holds, which step all workers can resume from, and the
records cut back to it.

    rank-N/checkpoints/step-00000120/      tensors: model.*, worker.* (Worker.state) and torch's random state
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.worker import Worker
from harness.records.files import write_atomically
from harness.records.logs import whole_lines
from harness.records.run_record import ByBucket, Bytes, Count, Loss, Record, Seconds
from harness.worker import checkpoint
from harness.worker.job import CheckpointOwner
from netsim.documents import validate
from netsim.errors import InputError

_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a worker has come. Seconds and bytes from the run's first step on, whoever's process did them."""

    step: int = 0
    tokens: int = 0
    clock: float = 0.0  # training clock at the end of `step`
    seconds: dict[str, float] = field(default_factory=dict)  # by bucket
    payload_bytes: int = 0
    wire_bytes: int = 0
    overruns: int = 0
    final_loss: float | None = None
    time_to_target: float | None = None

    def add(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def save(owner: CheckpointOwner, progress: Progress, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The checkpoint of `progress.step`; `state` is the worker's. Raises OSError (full disk); those before stay."""
    tensors: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"worker.{name}": tensor for name, tensor in state.items()}
    tensors["random"] = torch.get_rng_state()
    meta = {**owner.manifest(), "progress": asdict(progress)}
    checkpoint.save(owner.folder, progress.step, tensors, meta)


@torch.no_grad()
def restore(owner: CheckpointOwner, step: int, model: nn.Module, worker: Worker) -> Progress:
    """Model and worker as they were after `step`. Raises InputError for a damaged or a foreign checkpoint."""
    tensors, progress = _sound(owner, step)
    for name, parameter in model.named_parameters():
        found = tensors.get(f"model.{name}")
        if found is None or found.shape != parameter.shape:
            shape = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise InputError(str(owner.folder), f"step {step}, model.{name}", shape, f"shape {tuple(parameter.shape)}")
        parameter.copy_(found)
    prefix = "worker."
    worker.load({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    torch.set_rng_state(tensors["random"])
    return progress


class _StoredProgress(Record):
    step: Count
    tokens: Count
    clock: Seconds
    seconds: ByBucket
    payload_bytes: Bytes
    wire_bytes: Bytes
    overruns: Count
    final_loss: Loss | None
    time_to_target: Seconds | None


def _sound(owner: CheckpointOwner, step: int) -> tuple[dict[str, Tensor], Progress]:
    found = checkpoint.load(owner.folder, step)
    where = str(owner.folder)
    for key, expected in owner.manifest().items():
        if found.meta.get(key) != expected:
            raise InputError(where, f"step {step}, {key}", found.meta.get(key), f"that of this worker, {expected!r}")
    progress = validate(_StoredProgress, found.meta.get("progress"), where, f"step {step}, progress")
    if progress.step != step:
        raise InputError(where, f"step {step}, progress.step", progress.step, f"{step}")
    if progress.tokens > step * owner.tokens_per_step:
        most = f"at most the {step * owner.tokens_per_step} of so many steps"
        raise InputError(where, f"step {step}, progress.tokens", progress.tokens, most)
    if "random" not in found.tensors:
        raise InputError(where, f"step {step}", "no random state", "a checkpoint of a worker")
    return found.tensors, Progress(**progress.model_dump())


def valid_steps(owner: CheckpointOwner) -> set[int]:
    """The steps that can be restored; every file is read and verified, and what is damaged is passed over."""
    steps = set()
    for step in checkpoint.steps(owner.folder):
        try:
            _sound(owner, step)
        except InputError as error:
            _log.warning("not resumed from: %s", error)
        else:
            steps.add(step)
    return steps


def common_step(owners: Iterable[CheckpointOwner]) -> int:
    """The last step that every worker can restore; 0 when there is none, which means from the start."""
    return max(set.intersection(*map(valid_steps, owners)), default=0)


def truncate_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Leave in a JSON-lines file only whole lines up to `step`; returns the lines that were cut off, if whole.

    A line without a step was damaged, and goes with those that were cut off in the middle.
    """
    if not path.exists():
        return []
    kept, cut = [], []
    for line, record in whole_lines(path):
        done = record.get("step")
        if not isinstance(done, int):
            continue
        if done <= step:
            kept.append(line)
        else:
            cut.append(record)
    write_atomically(path, "".join(f"{line}\n" for line in kept))
    return cut


def wire_bytes_sent() -> int:
    """What this node's wan0 has sent, as the kernel counts it; 0 where there is no wan0."""
    for line in Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "wan0":
            return int(numbers.split()[8])
    return 0
