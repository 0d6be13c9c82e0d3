"""NoLoCo: DiLoCo without a collective: outer steps in random pairs (Kolehmainen et al., arXiv 2506.10911, section 3).

    theta^m = AdamW^H(phi^m);    Delta^m = phi^m - theta^m
    every round the workers are drawn into pairs (m, j), from the seed; with n = 2 and sums over the pair
    delta^m = alpha delta^m + (beta / n) sum Delta + gamma (phi^m - (1/n) sum phi)
    phi^m   = phi^m - delta^m

The last term pulls the slow weights of a pair together; no step waits for more than one other worker. Each pair adds up
Delta and phi: twice the model in each direction. With an odd number of workers one sits a round out, as a pair of its
own. The evaluated model is the mean of the workers' slow weights.
"""

from __future__ import annotations

import random

import torch
from pydantic import Field

from algorithms.inner import flatten
from algorithms.method import Method, Options
from algorithms.outer_worker import OuterWorker
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer


class NoLocoOptions(Options):
    sync_every: int = Field(default=50, ge=1, le=10**9)  # H
    outer_momentum: float = Field(default=0.5, ge=0, lt=1)  # alpha
    outer_lr: float = Field(default=0.7, gt=0, le=1e6)  # beta
    pull: float = Field(default=1.0, ge=0, le=1e6)  # gamma


class NoLoco(Method[NoLocoOptions]):
    name = "noloco"
    summary = "local AdamW, outer steps in random pairs"
    Options = NoLocoOptions
    may_skip_steps = True

    def pairs(self, step: int, sites: int, seed: int) -> list[tuple[int, ...]]:
        """The pairs of the round that ends after `step`; a function of the seed."""
        order = random.Random(f"pairs {seed} {step}").sample(range(sites), sites)
        return [tuple(sorted(order[at : at + 2])) for at in range(0, sites, 2)]

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        every = self.options.sync_every
        ends = [*range(every, steps + 1, every), *([steps] if steps % every else [])]
        recurrences = []
        for step in ends:
            pairs = [pair for pair in self.pairs(step, sites, seed) if len(pair) == 2]
            transfers = tuple(
                Transfer(f"pair/{index}", 2 * shape.count(), pair, self.options.wire_dtype)
                for index, pair in enumerate(pairs)
            )
            recurrences.append(Recurrence(transfers, 1, step, step))
        return Plan(sites, steps, tuple(recurrences))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = self.local_memory(shape)
        return {**found, "outer_parameters": size, "outer_momentum": size}

    def worker(self, setup: WorkerSetup) -> Worker:
        return NoLocoWorker(self, setup)


class NoLocoWorker(OuterWorker):
    replicated = False

    def __init__(self, method: NoLoco, setup: WorkerSetup) -> None:
        super().__init__(setup, "outer_momentum")
        self.options = method.options

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        every, last = self.options.sync_every, self.setup.plan.steps
        if step % every and step != last:
            return
        delta = self.outer - flatten(self.parameters)
        sums = torch.cat([delta, self.outer])
        for transfer in self.setup.plan.at(step):
            if self.setup.rank in transfer.members:
                self.setup.exchange.run(step, [(transfer, sums)])
                sums.div_(len(transfer.members))
        mean_delta, mean_outer = sums.chunk(2)
        momentum = self.kept["outer_momentum"].mul_(self.options.outer_momentum)
        momentum.add_(mean_delta, alpha=self.options.outer_lr).add_(self.outer - mean_outer, alpha=self.options.pull)
        self.outer.sub_(momentum)
        self.restart()


METHOD = NoLoco
