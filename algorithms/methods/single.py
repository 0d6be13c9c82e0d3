"""Single: AdamW without any communication, every worker on its own: what the others' data is worth.

With one site it is the single-worker reference; with more, the evaluated loss is the mean over the lone models.
"""

from __future__ import annotations

from algorithms.inner_worker import InnerWorker
from algorithms.method import Method, Options
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan


class Single(Method[Options]):
    name = "single"
    summary = "every worker on its own"
    Options = Options

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        return Plan(sites, steps, ())

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        return self.local_memory(shape)

    def worker(self, setup: WorkerSetup) -> Worker:
        return SingleWorker(setup)


class SingleWorker(InnerWorker):
    def synchronise(self, step: int, lr: float) -> None:
        """Nothing: there is no plan."""


METHOD = Single
