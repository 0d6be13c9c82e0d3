"""Asynchronous DiLoCo: workers' updates arrive at a server one by one (Liu et al. 2024, arXiv 2401.09135, algorithm 3).

    theta^m = AdamW^{H_m}(theta_fetched);   g = theta_fetched - theta^m        worker m, whenever its round ends
    at the t-th arrival, with a buffer B of N arrivals (delayed Nesterov):
        B = B + g;    every N-th:  b = mu b + B / N,  B = 0,  theta = theta - eta ((1 - c N + c) mu b + g / N)
                      otherwise:   theta = theta - eta (c mu b + g / N)
    and worker m goes on from theta.

No round waits for all: an arrival concerns the server and one worker, who exchange an update and a model. Rounds of
unlike length (`periods`, the local steps of fast and slow sites) are the paper's dynamic local updates. The order of
arrivals is planned, by the local steps of the paced clock, so plan, ledger and bits are the same in every run: the ends
of rounds are spread over the period. An update's staleness, the updates that the server applied since the worker
fetched its model, is bounded by the plan, and refused above `most_stale`. The server is the first site; it trains, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from pydantic import Field
from torch import nn

from algorithms.averaging import control_broadcast, swapped_in
from algorithms.inner import flatten
from algorithms.method import Method, Options
from algorithms.outer_worker import OuterWorker
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.errors import InputError
from netsim.traffic import Collective, Plan, Recurrence, Transfer

SERVER = 0


class AsyncDilocoOptions(Options):
    sync_every: int = Field(default=50, ge=1, le=10**9)  # H, local steps between a worker's fetch and its update
    periods: tuple[int, ...] | None = None  # H of each site, where sites are unlike
    outer_lr: float = Field(default=0.7, gt=0, le=1e3)  # eta
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)  # mu
    buffer: int | None = Field(default=None, ge=1, le=10**6)  # N, arrivals between momentum updates; default: the sites
    spread: float = Field(default=0.0, ge=0, le=1)  # c, at most 1 / N: how much of the momentum every arrival applies
    most_stale: int | None = Field(default=None, ge=0, le=10**6)  # bound on the staleness; default: what the plan has


class AsyncDiloco(Method[AsyncDilocoOptions]):
    name = "async_diloco"
    summary = "DiLoCo whose workers reach a server one by one, delayed Nesterov"
    Options = AsyncDilocoOptions
    may_skip_steps = True
    after_loss = "rollback"

    def rounds(self, sites: int) -> list[tuple[int, int]]:
        """(first end, period) of every worker's rounds, local steps. InputError for periods of other sites."""
        periods = self.options.periods or (self.options.sync_every,) * sites
        if len(periods) != sites or min(periods) < 1:
            raise InputError(self.name, "periods", list(periods), f"one of at least 1 for each of the {sites} sites")
        return [(max(1, (rank + 1) * period // sites), period) for rank, period in enumerate(periods)]

    def staleness(self, sites: int) -> int:
        """The most updates that others bring while one worker's round lasts."""
        periods = [period for _, period in self.rounds(sites)]
        return max(sum(-(-own // other) for other in periods) - 1 for own in periods)

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, found = self.options, list[Recurrence]()
        rounds, stale = self.rounds(sites), self.staleness(sites)
        if options.most_stale is not None and stale > options.most_stale:
            raise InputError(
                self.name, "most_stale", options.most_stale, f"at least {stale}, which these periods reach"
            )
        if options.spread * self.arrivals(sites) > 1:
            raise InputError(
                self.name, "spread", options.spread, f"at most 1 / {self.arrivals(sites)}, one by the buffer"
            )
        for rank, (first, period) in enumerate(rounds):
            if rank == SERVER:
                continue
            pair = (SERVER, rank)
            update = Transfer(
                f"update/{rank}", shape.count(), pair, options.wire_dtype, Collective.SEND, root=rank, phase=2 * rank
            )
            model = replace(update, name=f"model/{rank}", root=SERVER, phase=2 * rank + 1)
            found.append(Recurrence((update, model), period, first, steps))
        return Plan(sites, steps, tuple(found))

    def arrivals(self, sites: int) -> int:
        """N, the arrivals between two updates of the momentum."""
        return self.options.buffer or sites

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = {
            **self.local_memory(shape),
            "outer_parameters": size,
        }
        server = {"server_parameters": size, "server_momentum": size, "update_buffer": size}
        return {**found, **server} if rank == SERVER else found

    def survives(self, shape: ModelShape, sites: int, present: tuple[int, ...], seed: int = 0) -> bool:
        """Its exchanges are planned in pairs, so that every site is needed."""
        return len(present) == sites

    def worker(self, setup: WorkerSetup) -> Worker:
        return AsyncDilocoWorker(self, setup)


class AsyncDilocoWorker(OuterWorker):
    """`outer`: the model that this worker fetched last. At the server also the model of all, `server_parameters`."""

    replicated = False

    def __init__(self, method: AsyncDiloco, setup: WorkerSetup) -> None:
        server = ("server_parameters", "server_momentum", "update_buffer") if setup.rank == SERVER else ()
        super().__init__(setup, *server)
        self.options = method.options
        self.rounds, self.arrivals = method.rounds(setup.world), method.arrivals(setup.world)
        self.arrived = torch.zeros((), dtype=torch.int64)  # updates that the server has applied
        if setup.rank == SERVER:
            self.kept["server_parameters"].copy_(self.outer)

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        first, period = self.rounds[self.setup.rank]
        if self.setup.rank == SERVER and step >= first and (step - first) % period == 0:
            self._apply(self.outer - flatten(self.parameters))
            self.outer.copy_(self.kept["server_parameters"])
            self.restart()
        for transfer in self.setup.plan.at(step):
            if self.setup.rank not in transfer.members:
                continue
            if transfer.root != SERVER:
                update = self.outer - flatten(self.parameters)
                self.setup.exchange.run(step, [(transfer, update)])
                if self.setup.rank == SERVER:
                    self._apply(update)
            elif self.setup.rank == SERVER:
                self.setup.exchange.run(step, [(transfer, self.kept["server_parameters"].clone())])
            else:
                self.setup.exchange.run(step, [(transfer, self.outer)])
                self.restart()

    def _apply(self, update: torch.Tensor) -> None:
        """One arrival at the server, by the delayed Nesterov rule."""
        n, c, mu, lr = self.arrivals, self.options.spread, self.options.outer_momentum, self.options.outer_lr
        parameters, momentum = self.kept["server_parameters"], self.kept["server_momentum"]
        self.kept["update_buffer"].add_(update)
        self.arrived += 1
        weight = c
        if int(self.arrived) % n == 0:
            momentum.mul_(mu).add_(self.kept["update_buffer"], alpha=1 / n)
            self.kept["update_buffer"].zero_()
            weight = 1 - c * n + c
        parameters.sub_(momentum, alpha=lr * weight * mu).sub_(update, alpha=lr / n)

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The server's model, at every worker."""
        model = self.kept.get("server_parameters", self.outer).clone()
        control_broadcast(self.setup.control, "async/evaluation", model, SERVER)
        with swapped_in(self.parameters, model):
            yield self.setup.model

    def state(self) -> dict[str, torch.Tensor]:
        return {**super().state(), "arrived": self.arrived}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        super().load(state)
        self.arrived.copy_(state["arrived"])


METHOD = AsyncDiloco
