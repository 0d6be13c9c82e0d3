"""CPU time that a method's own arithmetic adds to a training step, against AdamW's step.

Runs in the command line's process. One worker whose transfers go nowhere (the exchange of a group of one thread),
native compute, dense `tiny`. A step is forward, backward, update and its share of the synchronisation that ends every
round. All loops advance in turn, step by step, so that a noisy host disturbs all of them, and CPU time is counted,
which on one thread is time on an idle core. Overhead is a method's time for a round over AdamW's for the same round.
The SVD of the low-rank methods is timed apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import mean, median
from typing import Any, Self

import torch
from torch import Tensor

from algorithms import lowrank
from algorithms.exchange import local_group
from algorithms.method import find
from algorithms.method import names as known
from algorithms.settings import InnerOptimizer
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from harness.worker.model import Transformer, build_model

PERIOD = 32  # steps of a round, for every method that has rounds
# Beside that period: what is benched of a method where its defaults would not show it.
SETTINGS: dict[str, dict[str, Any]] = {
    "photon": {"server_optimizer": "nesterov", "server_momentum": 0.9},
    "streaming_diloco": {"wire_dtype": "fp32"},
    "lowrank_ddp": {"refresh_every": PERIOD},
    "eager_diloco": {"wire_dtype": "fp32"},
}
TARGET_PERCENT = {"lordo": 25.0}
OTHERS_PERCENT = 10.0


def settings_of(name: str) -> dict[str, Any]:
    """The options with which a method is benched: rounds of `PERIOD` steps where it has rounds."""
    has_rounds = "sync_every" in type(find(name, {}, "bench")).Options.model_fields
    return {**({"sync_every": PERIOD} if has_rounds else {}), **SETTINGS.get(name, {})}


@dataclass(frozen=True)
class StepCost:
    """CPU seconds of a step without its SVD, of the part of it after the backward pass, and of the SVD."""

    step: float
    update: float
    svd: float


def _mean(costs: list[StepCost]) -> StepCost:
    return StepCost(*(mean(getattr(cost, part.name) for cost in costs) for part in fields(StepCost)))


class TimedSvd:
    """Within it, `algorithms.lowrank.basis` notes its time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._basis = lowrank.basis

    def __enter__(self) -> Self:
        setattr(lowrank, "basis", self._timed)  # noqa: B010 - mypy refuses to assign to a function
        return self

    def __exit__(self, *_: object) -> None:
        setattr(lowrank, "basis", self._basis)  # noqa: B010 - likewise

    def _timed(self, sources: Tensor, otherwise: Tensor) -> Tensor:
        start = time.process_time()
        found = self._basis(sources, otherwise)
        self.seconds += time.process_time() - start
        return found


class Loop:
    """Training by one method, step by step."""

    def __init__(self, name: str, shape: ModelShape, batch: int, steps: int) -> None:
        self.step = 0
        method = find(name, settings_of(name), "bench")
        self.model: Transformer = build_model(shape, 1, method.view(shape, 1, 0, 1))
        (exchange,), (control,) = local_group(1), local_group(1)
        plan = method.plan(shape, 1, steps, 1)
        self.worker: Worker = method.worker(
            WorkerSetup(self.model, shape, plan, 0, exchange, control, InnerOptimizer(), seed=1)
        )
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(shape.vocabulary, (batch, shape.sequence + 1), generator=generator)
        self.inputs, self.targets = tokens[:, :-1], tokens[:, 1:]

    def advance(self, svd: TimedSvd) -> StepCost:
        """One step."""
        self.step += 1
        before = svd.seconds
        start = time.process_time()
        self.worker.begin(self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.worker.module(self.inputs, self.targets)
        loss.backward()
        middle = time.process_time()
        self.worker.local_update(self.step, 1e-3)
        self.worker.synchronise(self.step, 1e-3)
        end = time.process_time()
        spent = svd.seconds - before
        return StepCost(end - start - spent, end - middle - spent, spent)


@dataclass(frozen=True)
class MethodOverhead:
    """CPU time of a method against AdamW's, in ms of a step and percent; `svd_ms_per_round` is not in the others."""

    method: str
    step_ms: float
    update_ms: float
    update_over_adamw_percent: float
    overhead_percent: float
    overhead_percent_range: list[float]  # smallest and largest of the turns
    svd_ms_per_round: float
    target_percent: float
    passed: bool


def measure_methods(
    shape: ModelShape, batch: int, turns: int, only: Sequence[str] | None = None
) -> list[MethodOverhead]:
    """One row for each method. A turn is one round, so that it holds one synchronisation."""
    torch.set_num_threads(1)
    names = [name for name in (only or known()) if name != "fomoe" or shape.kind == "moe"]
    loops = {name: Loop(name, shape, batch, (turns + 1) * PERIOD) for name in names}
    rounds: dict[str, list[StepCost]] = {name: [] for name in names}
    with TimedSvd() as svd:
        for turn in range(turns + 1):
            costs: dict[str, list[StepCost]] = {name: [] for name in names}
            for step in range(PERIOD):
                for name in names if step % 2 else reversed(names):
                    costs[name].append(loops[name].advance(svd))
            if turn:  # the first warms caches up
                for name, found in costs.items():
                    rounds[name].append(_mean(found))
    rows = []
    for name in names:
        ratios = [mine.step / adamw.step for mine, adamw in zip(rounds[name], rounds["single"], strict=True)]
        updates = [mine.update / adamw.update for mine, adamw in zip(rounds[name], rounds["single"], strict=True)]
        overhead, target = 100 * (median(ratios) - 1), TARGET_PERCENT.get(name, OTHERS_PERCENT)
        rows.append(
            MethodOverhead(
                method="adamw" if name == "single" else name,
                step_ms=1e3 * median(cost.step for cost in rounds[name]),
                update_ms=1e3 * median(cost.update for cost in rounds[name]),
                update_over_adamw_percent=100 * (median(updates) - 1),
                overhead_percent=overhead,
                overhead_percent_range=[100 * (min(ratios) - 1), 100 * (max(ratios) - 1)],
                svd_ms_per_round=1e3 * PERIOD * median(cost.svd for cost in rounds[name]),
                target_percent=target,
                passed=overhead <= target,
            )
        )
    return rows
