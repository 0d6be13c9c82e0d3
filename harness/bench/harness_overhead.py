"""Time that the harness adds to a training step, against the bare loop.

Runs in the command line's process. One worker, no network, native compute. Both loops do the same work: same model,
batches, precision, clipping, AdamW. They alternate, so that a noisy host disturbs both; the ratio of their median step
times is the overhead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from algorithms.inner import build_optimizer
from algorithms.settings import LearningRateSchedule
from harness.records.run_record import Step, read_lines
from harness.spec.presets import find_model
from harness.spec.run_spec import RunSpec, Train
from harness.worker.data import Dataset, Shard, prepare
from harness.worker.job import Job
from harness.worker.model import build_model, mean_loss
from harness.worker.process_memory import disable_malloc_trim
from harness.worker.trainer import Trainer

TARGET_PERCENT = 2.0
STEPS, SETTLE = 60, 10  # steps per turn, and how many of them are not counted
ALONE = {
    "name": "alone",
    "defaults": {"up": "1 Gbit", "down": "1 Gbit"},
    "sites": {"only": {}},
}


@dataclass(frozen=True)
class HarnessOverhead:
    """Median step times in ms, and the overhead in percent: median, smallest and largest of the turns."""

    model: str
    turns: int
    steps_per_turn: int
    bare_step_ms: float
    harness_step_ms: float
    overhead_percent: float
    overhead_percent_range: list[float]
    target_percent: float
    passed: bool


def measure_overhead(model: str, turns: int) -> HarnessOverhead:
    """Both loops in turn, `turns` times, with a model preset."""
    disable_malloc_trim()  # as in a trainer's process; both loops gain by it
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        times = _compare(_spec(model), Path(folder), turns)
    bare, harness = (median(pair[side] for pair in times) for side in (0, 1))
    ratios = [100 * (pair[1] / pair[0] - 1) for pair in times]
    return HarnessOverhead(
        model=model,
        turns=turns,
        steps_per_turn=STEPS,
        bare_step_ms=1e3 * bare,
        harness_step_ms=1e3 * harness,
        overhead_percent=median(ratios),
        overhead_percent_range=[min(ratios), max(ratios)],
        target_percent=TARGET_PERCENT,
        passed=median(ratios) <= TARGET_PERCENT,
    )


def _spec(model: str) -> RunSpec:
    return RunSpec(
        suite="bench",
        label="diloco",
        method="diloco",
        options={"sync_every": 10 * STEPS},  # the one exchange is at the end, and not counted
        topology=ALONE,
        seed=1,
        model=find_model(model, "command line"),
        train=Train(steps=STEPS, evaluate_every=STEPS),
    )


def _compare(spec: RunSpec, folder: Path, turns: int) -> list[tuple[float, float]]:
    """Seconds per step of the bare loop and of the harness, turn by turn."""
    dataset = prepare(spec.data, 1, spec.model.sequence, spec.seed, folder / "cache", spec.model.vocabulary)
    found = []
    for turn in range(turns):
        pair: list[Callable[[], float]] = [
            partial(_bare, spec, dataset),
            partial(_harness, spec, dataset, folder / f"turn-{turn}"),
        ]
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        times = {index: pair[index]() for index in order}
        found.append((times[0], times[1]))
    return found


def _bare(spec: RunSpec, dataset: Dataset) -> float:
    """The loop that anyone would write."""
    train, settings = spec.train, spec.train.optimizer
    model = build_model(spec.model, spec.seed)
    model.balance_weight = train.balance_weight
    optimizer = build_optimizer(settings, model.parameters())
    schedule = LearningRateSchedule(settings.lr, train.warmup, train.steps, train.floor)
    shard, marks = Shard(dataset.shards[0]), []
    for step in range(1, STEPS + 1):
        inputs, targets = shard.batch(step, train.batch, spec.model.sequence, spec.seed, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        loss = mean_loss(logits, targets)
        loss.item()
        torch.autograd.backward(loss + model.auxiliary_loss())
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(time.monotonic())
    return (marks[-2] - marks[SETTLE - 1]) / (STEPS - 1 - SETTLE)


def _harness(spec: RunSpec, dataset: Dataset, directory: Path) -> float:
    job = Job(
        spec=spec,
        run_id="bench",
        rank=0,
        wan_addresses=("127.0.0.1",),
        control_addresses=("127.0.0.1",),
        directory=directory,
        shard=dataset.shards[0],
        held_out=dataset.held_out,
    )
    job.rank_directory.mkdir(parents=True)
    job.run_files.go.touch()
    Trainer(job).run()
    steps = list(read_lines(job.files.steps, Step))
    return (steps[-2].clock - steps[SETTLE - 1].clock) / (STEPS - 1 - SETTLE)
