"""Photon: federated rounds of local training under a server (arXiv 2411.02908, MLSys 2025).

    S       a cohort of clients, drawn without replacement
    theta^k = AdamW^tau(x)                  each client k in S from the server's x; learning rate by the global step
    g       = x - sum_k (n_k / n) theta^k   pseudo-gradient, clients weighted by their samples n_k
    x       = ServerOpt(x, g)               fedavg, nesterov, fedmom, fedadam, fedyogi (algorithms.outer)

Aggregation through a parameter server (`ps`): the cohort's updates are reduced to the site `server`, which steps and
sends x to the next cohort. With `allreduce` or `ring` every site keeps a replica of the server, takes part in every
reduction (with zeros when it did not train) and makes the server's step itself.
The recipe: small batches at the large batch's peak learning rate, on a schedule stretched by B_central / B_local.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from algorithms.averaging import MOMENTS, Moments, control_broadcast, swapped_in
from algorithms.inner import flatten, tensor_bytes, unflatten_into
from algorithms.method import Method, Options
from algorithms.outer import OuterName, OuterOptimizer
from algorithms.outer_worker import OuterWorker
from algorithms.periodic import periodic
from algorithms.settings import LearningRateSchedule, OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.collectives import suited
from netsim.errors import InputError
from netsim.traffic import Algorithm, Cohort, Collective, Plan, Recurrence, Transfer, WireType


class PhotonOptions(Options):
    sync_every: int = Field(default=128, ge=1, le=10**9)  # tau, local steps per round; the paper has 64 to 512
    clients_per_round: int | None = Field(default=None, ge=1, le=10**9)  # default: all
    client_weights: tuple[float, ...] | None = None  # samples n_k of every client, relative; default: equal
    drop_probability: float = Field(default=0.0, ge=0, lt=1)  # a sampled client's update is lost; the rest renormalised
    aggregation: Literal["ps", "allreduce", "ring"] = "ps"
    server: int = Field(default=0, ge=0, le=10**9)  # rank of the aggregator's site
    server_optimizer: OuterName = "fedavg"
    server_lr: float = Field(default=1.0, gt=0, le=1e6)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)
    server_betas: tuple[float, float] = (0.9, 0.99)
    server_tau: float = Field(default=1e-3, gt=0, le=1e6)
    optimizer_state: Literal["reset", "keep", "sync"] = "reset"
    update_compression: Literal["none", "bf16", "int8", "fp4"] = "none"
    central_batch: int | None = Field(
        default=None, ge=1, le=10**9
    )  # B_central and B_local, sequences: stretch the schedule
    local_batch: int | None = Field(default=None, ge=1, le=10**9)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.central_batch is None) != (self.local_batch is None):
            raise ValueError("central_batch and local_batch together")
        if self.server_optimizer == "fedavg" and (self.server_lr != 1 or self.server_momentum):
            raise ValueError("server_lr and server_momentum with another server_optimizer: fedavg has neither")
        if self.client_weights is not None and not all(weight > 0 for weight in self.client_weights):
            raise ValueError("client_weights above 0")
        return self

    @property
    def outer(self) -> OuterOptimizer:
        return OuterOptimizer(
            name=self.server_optimizer,
            lr=self.server_lr,
            momentum=self.server_momentum,
            betas=self.server_betas,
            tau=self.server_tau,
        )

    @property
    def update_wire(self) -> WireType:
        return self.wire_dtype if self.update_compression == "none" else WireType(self.update_compression)


@dataclass(frozen=True)
class PhotonRound:
    """Steps first to last. `cohort` trains, `arrived` is the part whose updates count, `after` trains next."""

    first: int
    last: int
    cohort: tuple[int, ...]
    arrived: tuple[int, ...]
    after: tuple[int, ...]


class Photon(Method[PhotonOptions]):
    name = "photon"
    summary = "federated rounds under a server optimizer"
    Options = PhotonOptions
    may_skip_steps = True

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw", "adopt") if self.options.optimizer_state == "sync" else super().inner_optimizers

    def rounds(self, sites: int, steps: int, seed: int) -> Iterator[PhotonRound]:
        """All rounds of a run; the same for the same seed, so that whoever resumes meets the same cohorts."""
        size, tau = self.options.clients_per_round or sites, self.options.sync_every
        if size > sites:
            raise InputError("photon", "clients_per_round", size, f"at most the {sites} sites")
        sampling, losses = random.Random(seed), random.Random(f"drop {seed}")
        cohort = tuple(sorted(sampling.sample(range(sites), size)))
        for first in range(1, steps + 1, tau):
            after = tuple(sorted(sampling.sample(range(sites), size)))
            arrived = tuple(k for k in cohort if losses.random() >= self.options.drop_probability)
            yield PhotonRound(first, min(first + tau - 1, steps), cohort, arrived, after)
            cohort = after

    def weight(self, client: int, arrived: tuple[int, ...], sites: int) -> float:
        """n_k / n over those that arrived; 0 for others."""
        weights = self.options.client_weights or (1.0,) * sites
        if len(weights) != sites:
            raise InputError("photon", "client_weights", len(weights), f"one for each of the {sites} sites")
        return weights[client] / sum(weights[k] for k in arrived) if client in arrived else 0.0

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options = self.options
        if options.server >= sites:
            raise InputError("photon", "server", options.server, f"a rank below the {sites} sites")
        self.weight(0, (0,), sites)
        everyone, elements = tuple(range(sites)), shape.count()
        if options.clients_per_round in (None, sites) and not options.drop_probability:
            transfers = self._transfers(elements, everyone, everyone, everyone)
            return Plan(sites, steps, periodic(transfers, options.sync_every, steps))
        recurrences, cohorts = [], []
        for each in self.rounds(sites, steps, seed):
            transfers = self._transfers(elements, each.arrived, each.after, everyone)
            recurrences.append(Recurrence(transfers, 1, each.last, each.last))
            cohorts.append(Cohort(each.first, each.last, each.cohort))
        return Plan(sites, steps, tuple(recurrences), tuple(cohorts))

    def _transfers(
        self, elements: int, arrived: tuple[int, ...], after: tuple[int, ...], everyone: tuple[int, ...]
    ) -> tuple[Transfer, ...]:
        """What ends a round. Moments, when synchronised, are averaged like the parameters (three times the bytes)."""
        options = self.options
        wires = [("update", options.update_wire), ("model", options.wire_dtype)]
        moments = MOMENTS if options.optimizer_state == "sync" else ()
        if options.aggregation != "ps":
            asked = Algorithm.RING if options.aggregation == "ring" else Algorithm.AUTO
            names = (wires[0], *((name, options.wire_dtype) for name in moments))
            if not arrived:
                return ()
            sums = (Transfer(name, elements, everyone, wire) for name, wire in names)
            return tuple(replace(each, algorithm=suited(each, asked)) for each in sums)
        root = options.server
        found: list[Transfer] = []
        for phase, (others, (what, wire)) in enumerate(zip((arrived, after), wires, strict=True)):
            kind = Collective.BROADCAST if phase else Collective.REDUCE
            members = tuple(sorted({*others, root}))
            whole = Transfer(what, elements, members, wire, kind, root=root, phase=phase)
            extra = (replace(whole, name=name, wire=options.wire_dtype) for name in moments)
            found += [whole, *extra] if phase or arrived else []
        return tuple(found)

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = {
            **self.local_memory(shape),
            "outer_parameters": size,
        }
        if self.options.aggregation == "ps" and rank == self.options.server:
            found["server_parameters"] = size
        if self.options.outer.slots and (self.options.aggregation != "ps" or rank == self.options.server):
            found["server_momentum"] = len(self.options.outer.slots) * size
        return found

    def schedule(self, base: LearningRateSchedule) -> LearningRateSchedule:
        if self.options.central_batch is None or self.options.local_batch is None:
            return base
        stretch = self.options.central_batch / self.options.local_batch
        return replace(base, warmup=round(base.warmup * stretch), total=round(base.total * stretch))

    def survives(self, shape: ModelShape, sites: int, present: tuple[int, ...], seed: int = 0) -> bool:
        """A client's loss is part of the method; the server's is not."""
        return self.options.aggregation != "ps" or self.options.server in present

    def scale(self, transfer: Transfer, present: tuple[int, ...]) -> float:
        weights = self.options.client_weights
        if weights is None:
            return super().scale(transfer, present)
        return sum(weights[k] for k in transfer.members) / sum(weights[k] for k in present)

    def shared(self, shape: ModelShape, sites: int) -> int:
        """The server's model; without a server of its own also the replica of it and of its state."""
        if self.options.aggregation == "ps":
            return shape.count()
        return (2 + len(self.options.outer.slots)) * shape.count()

    def worker(self, setup: WorkerSetup) -> Worker:
        return PhotonWorker(self, setup)


class PhotonWorker(OuterWorker):
    """A client, and at the server's site also the server. `outer`: the x that this client last received (elements,).

    The server's own x (`server`) stays in full precision however coarse the wire is.
    """

    def __init__(self, method: Photon, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.method, self.options = method, method.options
        self.moments = Moments(self.optimizer, self.parameters)
        self.rounds = {each.last: each for each in method.rounds(setup.world, setup.plan.steps, setup.seed)}
        self.through_server = self.options.aggregation == "ps"
        self.is_server = not self.through_server or setup.rank == self.options.server
        self.server = self.outer.clone() if self.through_server and self.is_server else self.outer
        self.server_state = self.options.outer.start(self.server) if self.is_server else {}

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        ended = self.rounds.get(step)
        if ended is None:
            return
        rank, world = self.setup.rank, self.setup.world
        # When nobody's update arrived, x stays, and what was to be averaged stays with its owner.
        weight = self.method.weight(rank, ended.arrived, world) if ended.arrived else 1.0
        update = (self.outer - flatten(self.parameters)).mul_(weight)
        gathered = {"update": update}
        if self.options.optimizer_state == "sync":
            gathered |= {name: flatten(self.moments.tensors(name)).mul_(weight) for name in MOMENTS}
        self._run(step, 0, gathered)
        if self.is_server and ended.arrived:
            self.options.outer.step(self.server, update, self.server_state)
        if self.through_server:
            model = self.server.clone() if self.is_server else self.outer
            self._run(step, 1, {**gathered, "model": model})
            self.outer.copy_(model)
        if rank in ended.after or not self.through_server:
            self.restart()
            self._begin_round(step, gathered)

    def _run(self, step: int, phase: int, tensors: dict[str, Tensor]) -> None:
        mine = [t for t in self.setup.plan.at(step) if t.phase == phase and self.setup.rank in t.members]
        self.setup.exchange.run(step, [(transfer, tensors[transfer.name]) for transfer in mine])

    def _begin_round(self, step: int, averaged: dict[str, Tensor]) -> None:
        if self.options.optimizer_state == "reset":
            self.moments.reset()
        elif self.options.optimizer_state == "sync":
            for name in MOMENTS:
                unflatten_into(self.moments.tensors(name), averaged[name])
            self.moments.count(step)

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        current = self.server.clone()
        if self.through_server:  # clients outside the cohort do not have it
            control_broadcast(self.setup.control, "photon/evaluation", current, self.options.server)
        with swapped_in(self.parameters, current):
            yield self.setup.model

    def own(self, name: str) -> bool:
        return super().own(name) or (self.through_server and name.startswith("server"))

    def state(self) -> dict[str, Tensor]:
        own = {f"server.{name}": value for name, value in self.server_state.items()}
        return {**super().state(), "server": self.server, **own}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.moments = Moments(self.optimizer, self.parameters)
        self.server.copy_(state["server"])
        for name, value in self.server_state.items():
            value.copy_(state[f"server.{name}"])

    def memory(self) -> dict[str, int]:
        found = super().memory()
        if self.server is not self.outer:
            found["server_parameters"] = tensor_bytes([self.server])
        if self.server_state:
            found["server_momentum"] = tensor_bytes(self.server_state.values())
        return found


METHOD = Photon
