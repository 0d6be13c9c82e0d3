"""Local Adam: local AdamW whose parameters and both moments are averaged every K steps.

    x, u, v = AdamW^K on the worker's own data;      x, u, v = mean_m x, mean_m u, mean_m v

That is DES-LOC with K_x = K_u = K_v (see desloc), and moves 3/K of the model per step.
"""

from __future__ import annotations

from pydantic import Field

from algorithms.method import Method, Options
from algorithms.methods.desloc import Desloc, DeslocOptions
from algorithms.settings import OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan


class LocalAdamOptions(Options):
    sync_every: int = Field(default=32, ge=1, le=10**9)  # K


class LocalAdam(Method[LocalAdamOptions]):
    name = "local_adam"
    summary = "local AdamW; parameters and both moments averaged together"
    Options = LocalAdamOptions
    may_skip_steps = True

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw", "adopt")  # both moments are averaged

    @property
    def _as_desloc(self) -> Desloc:
        every = self.options.sync_every
        options = DeslocOptions(wire_dtype=self.options.wire_dtype, sync_every=every, k_u=every, k_v=every)
        return Desloc(options, self.inner)

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        return self._as_desloc.plan(shape, sites, steps, seed)

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        return self._as_desloc.memory(shape, sites, rank, seed)

    def worker(self, setup: WorkerSetup) -> Worker:
        return self._as_desloc.worker(setup)


METHOD = LocalAdam
