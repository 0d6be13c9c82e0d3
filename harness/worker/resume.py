"""Going on where an interrupted run stood: what a checkpoint holds, which step all workers can resume from, and the
records cut back to it.

    rank-N/checkpoints/step-00000120/      tensors: model.*, worker.* (Worker.state) and torch's random state
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.worker import Worker
from harness.records.layout import RunDirectory, WorkerDirectory
from harness.worker import checkpoint
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


def checkpoints_of(rank_directory: Path) -> Path:
    return WorkerDirectory(rank_directory).checkpoints


def save(rank_directory: Path, run_id: str, progress: Progress, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The checkpoint of `progress.step`; `state` is the worker's. Raises OSError (full disk); those before stay."""
    tensors: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"worker.{name}": tensor for name, tensor in state.items()}
    tensors["random"] = torch.get_rng_state()
    meta = {"run_id": run_id, "progress": asdict(progress)}
    checkpoint.save(checkpoints_of(rank_directory), progress.step, tensors, meta)


@torch.no_grad()
def restore(rank_directory: Path, run_id: str, step: int, model: nn.Module, worker: Worker) -> Progress:
    """Model and worker as they were after `step`. Raises InputError for a damaged or a foreign checkpoint."""
    found = _sound(rank_directory, run_id, step)
    for name, parameter in model.named_parameters():
        parameter.copy_(found.tensors[f"model.{name}"])
    prefix = "worker."
    worker.load({n.removeprefix(prefix): t for n, t in found.tensors.items() if n.startswith(prefix)})
    torch.set_rng_state(found.tensors["random"])
    return Progress(**found.meta["progress"])


def _sound(rank_directory: Path, run_id: str, step: int) -> checkpoint.Checkpoint:
    place = checkpoints_of(rank_directory)
    found = checkpoint.load(place, step)
    if found.meta.get("run_id") != run_id:
        raise InputError(str(place), f"step {step}", f"a checkpoint of {found.meta.get('run_id')}", f"one of {run_id}")
    return found


def valid_steps(rank_directory: Path, run_id: str) -> set[int]:
    """The steps that can be restored; every file is read and verified, and what is damaged is passed over."""
    steps = set()
    for step in checkpoint.steps(checkpoints_of(rank_directory)):
        try:
            _sound(rank_directory, run_id, step)
        except InputError as error:
            _log.warning("not resumed from: %s", error)
        else:
            steps.add(step)
    return steps


def common_step(directory: Path, ranks: Iterable[int], run_id: str) -> int:
    """The last step that every rank can restore; 0 when there is none, which means from the start."""
    found = [valid_steps(RunDirectory(directory).worker(rank).path, run_id) for rank in ranks]
    return max(set.intersection(*found), default=0)


def truncate_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Leave in a JSON-lines file only whole lines up to `step`; returns the lines that were cut off, if whole."""
    kept, cut = [], []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the process was killed while it wrote this one
            continue
        if record["step"] <= step:
            kept.append(line)
        else:
            cut.append(record)
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    part.chmod(0o666)  # whoever goes on may be another user than whoever cuts
    part.replace(path)
    return cut


def wire_bytes_sent() -> int:
    """What this node's wan0 has sent, as the kernel counts it; 0 where there is no wan0."""
    for line in Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "wan0":
            return int(numbers.split()[8])
    return 0
