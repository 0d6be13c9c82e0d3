"""FoMoE: a federation of mixtures of experts, in which no worker holds the whole model (arXiv 2606.19025).

    N_le    = O_e N_e / M experts of each layer at each of M workers, every expert at exactly O_e of them
    theta^m = AdamW^K(theta_dense, theta_experts of m)      tokens reach resident experts only
    dense   : mean over all M;      expert e : mean over its O_e holders only
    outer   : diloco       Nesterov on the averaged pseudo-gradient, 0.7 / 0.9, moments kept local
              local_adamw  parameters and both moments are averaged (three times the bytes), no outer step

routing masked: a worker has only its experts' router rows, and a row travels with its expert; top-min(k, N_le).
routing skip:   the router is whole and averaged like dense weights; choices of absent experts are dropped.
placement fixed: for the whole run.   random: redrawn every `move_every` rounds T; a site that gains an expert receives
it from an old holder and starts its moments from zero, with a learning rate that ramps up on these weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.averaging import MOMENTS, Moments
from algorithms.catch_up import CATCH_UP, to_those_behind
from algorithms.experts import ExpertModel, Ids, Layout, expert_elements, sparse_roles
from algorithms.inner import tensor_bytes, update
from algorithms.inner_worker import InnerWorker
from algorithms.method import Method, ModelView, Options
from algorithms.migration import Migration
from algorithms.outer import nesterov_
from algorithms.periodic import lossy, periodic
from algorithms.placement import Placement, source_for
from algorithms.settings import SLOTS, OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.errors import InputError
from netsim.traffic import Collective, Plan, Recurrence, Transfer, WireType

AVERAGED = {"diloco": ("pseudo_gradient",), "local_adamw": ("parameters", *MOMENTS)}


class FomoeOptions(Options):
    sync_every: int = Field(default=32, ge=1, le=10**9)  # K
    replication: int | None = Field(
        default=None, ge=1, le=10**9
    )  # O_e; default: the least that fits and is at least M/2
    routing: Literal["masked", "skip"] = "masked"
    placement: Literal["fixed", "random"] = "fixed"
    move_every: int = Field(default=1, ge=1, le=10**9)  # T, rounds between draws; gamma = 1/T
    draws: int = Field(default=16, ge=2, le=10_000)  # random maps before they repeat
    ramp_steps: int | None = Field(default=None, ge=0, le=10**9)  # learning-rate ramp of experts that came; default K/4
    outer: Literal["diloco", "local_adamw"] = "local_adamw"
    outer_lr: float = Field(default=0.7, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)
    outer_momentum_of_moved: Literal["reset", "ship"] = "reset"  # diloco: of experts whose holders change
    outer_on_single_holder: bool = True  # diloco: the outer step also moves experts that only one worker holds
    evaluate: Literal["assembled", "site"] = "assembled"  # the whole model, or what each site sees


class Fomoe(Method[FomoeOptions]):
    name = "fomoe"
    summary = "experts partitioned over the sites, averaged among their holders"
    Options = FomoeOptions
    may_skip_steps = True

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw", "adopt", "sgd")  # moments follow their experts

    def placement(self, shape: ModelShape, sites: int, seed: int) -> Placement:
        if shape.kind != "moe":
            raise InputError(
                "fomoe", "model", shape.name, "a model with experts, kind: moe; it moves none of a module of your own"
            )
        replication = self.options.replication
        if replication is None:
            replication = next(r for r in range(-(-sites // 2), sites + 1) if r * shape.experts % sites == 0)
        if self.options.placement == "fixed":
            return Placement(shape.layers, shape.experts, sites, replication)
        return Placement(shape.layers, shape.experts, sites, replication, self.options.draws, seed)

    def view(self, shape: ModelShape, sites: int, rank: int, seed: int = 0) -> ModelView:
        placement = self.placement(shape, sites, seed)
        if placement.replication == sites:
            return ModelView()
        return ModelView(placement.residents(rank, 0), self.options.routing)

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, placement, wire = self.options, self.placement(shape, sites, seed), self.options.wire_dtype
        dense, per_expert = self._elements(shape)
        sizes = {
            holders: shape.expert_layers * len(positions) * per_expert
            for holders, positions in placement.groups.items()
        }
        transfers = []
        for what in AVERAGED[options.outer]:
            transfers.append(Transfer(f"dense/{what}", dense, tuple(range(sites)), wire, part=(what, None)))
            for index, (holders, size) in enumerate(sizes.items()):
                if len(holders) > 1:
                    transfers.append(Transfer(f"experts/{what}/{index}", size, holders, wire, part=(what, index)))
        recurrences = list(periodic(tuple(transfers), options.sync_every, steps))
        if self.moves(placement):
            period = options.sync_every * options.move_every
            for draw in range(min(options.draws, (steps - 1) // period)):
                moves = tuple(self._move(placement, draw, per_expert))
                recurrences.append(Recurrence(moves, period * options.draws, period * (draw + 1), steps - 1))
        return Plan(sites, steps, tuple(recurrences))

    def moves(self, placement: Placement) -> bool:
        return self.options.placement == "random" and placement.replication < placement.sites

    @property
    def shipped(self) -> tuple[str, ...]:
        """What travels with an expert that moves."""
        if self.options.outer == "local_adamw":
            return ("parameters",)
        return ("outer", "momentum") if self.options.outer_momentum_of_moved == "ship" else ("outer",)

    @property
    def move_wire(self) -> WireType:
        """Every holder must end with the same bits, so types whose rounding depends on the neighbours do not serve."""
        return WireType.BF16 if self.options.wire_dtype.blocked else self.options.wire_dtype

    def _move(self, placement: Placement, draw: int, per_expert: int) -> Iterator[Transfer]:
        for index, (move, _) in enumerate(placement.moves(draw)):
            members = tuple(sorted({move.root, *move.newcomers}))
            size, kind = move.experts * per_expert, Collective.BROADCAST
            for what in self.shipped:
                name, part = f"move/{what}/{index}", (what, index)
                yield Transfer(name, size, members, self.move_wire, kind, root=move.root, phase=1, part=part)

    def _elements(self, shape: ModelShape) -> tuple[int, int]:
        """Numbers in the dense part, and in one expert with what travels with it."""
        return shape.count() - shape.count(*sparse_roles(self.options.routing)), expert_elements(
            shape, self.options.routing
        )

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        dense, per_expert = self._elements(shape)
        size = 4 * (dense + shape.expert_layers * self.placement(shape, sites, seed).resident * per_expert)
        found = {"weights": size, "gradients": size, "inner_moments": SLOTS[self.inner.name] * size}
        if self.options.outer == "diloco":
            return {**found, "outer_parameters": size, "outer_momentum": size}
        return {**found, "reference": size} if lossy(self.options.wire_dtype) else found

    def flops_per_token(self, shape: ModelShape, sites: int) -> float:
        """Balanced routing assumed: skipping executes O_e/M of the chosen experts (Eq. 2), masking min(k, N_le)."""
        resident = self.placement(shape, sites, 0).resident
        if self.options.routing == "skip":
            return shape.flops_per_token(expert_share=resident / shape.experts)
        return shape.flops_per_token(min(shape.top_k, resident) / shape.top_k, resident / shape.experts)

    def survives(self, shape: ModelShape, sites: int, present: tuple[int, ...], seed: int = 0) -> bool:
        """Every expert needs a living holder; experts that move need all sites."""
        placement = self.placement(shape, sites, seed)
        if self.moves(placement):
            return len(present) == sites
        return all(set(holders) & set(present) for holders in placement.groups)

    @property
    def banks(self) -> int:
        """Values per weight that holders share: see `FomoeWorker`."""
        return 2 if self.options.outer == "diloco" else 3 + lossy(self.options.wire_dtype)

    def catch_up(
        self, shape: ModelShape, sites: int, root: int, behind: tuple[int, ...], present: tuple[int, ...], seed: int = 0
    ) -> tuple[Transfer, ...]:
        dense, per_expert = self._elements(shape)
        groups = self.placement(shape, sites, seed).groups
        found = [(dense, root, behind)]
        for holders, positions in groups.items():
            if (ranks := source_for(holders, behind, present)) is not None:
                found.append((shape.expert_layers * len(positions) * per_expert, *ranks))
        return tuple(
            to_those_behind(f"{CATCH_UP}/{index}", self.banks * size, source, takers)
            for index, (size, source, takers) in enumerate(found)
        )

    def worker(self, setup: WorkerSetup) -> Worker:
        return FomoeWorker(self, setup)


class FomoeWorker(InnerWorker):
    """Tensors that follow the parameters (outer parameters, momenta, moments) are lists in the parameters' order."""

    def __init__(self, method: Fomoe, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.method, self.options = method, method.options
        self.placement = method.placement(setup.shape, setup.world, setup.seed)
        self.layout = Layout(setup.model, setup.shape, self.options.routing)
        self.model = cast(ExpertModel, setup.model)
        self.draw = 0
        self.residents = self.placement.residents(setup.rank, 0)
        self.moments = Moments(self.optimizer, self.parameters)
        self.diloco = self.options.outer == "diloco"
        keeps_reference = self.diloco or lossy(self.options.wire_dtype)
        self.outer = [p.detach().clone() for p in self.parameters] if keeps_reference else []
        self.momentum = [torch.zeros_like(p) for p in self.parameters] if self.diloco else []
        self.drifted = False
        self.ramp_from: int | None = None  # the step at which experts came
        self.came: list[Ids] = []
        self.observed: dict[str, float] = {}

    @torch.no_grad()
    def local_update(self, step: int, lr: float) -> None:
        self.drifted = True
        ramp = self.options.sync_every // 4 if self.options.ramp_steps is None else self.options.ramp_steps
        if self.ramp_from is None or step - self.ramp_from > ramp:
            update(self.setup.optimizer, self.optimizer, lr)
            return
        before = self.layout.gather(self.parameters, self.came, self.residents)
        update(self.setup.optimizer, self.optimizer, lr)
        after = self.layout.gather(self.parameters, self.came, self.residents)
        share = (step - self.ramp_from) / (ramp + 1)
        self.layout.scatter(self.parameters, before.lerp_(after, share), self.came, self.residents)

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        transfers = [t for t in self.setup.plan.at(step) if t.phase == 0]
        if not transfers:
            return
        self._observe()
        averaged = self._outgoing()
        self._average(step, [t for t in transfers if self.setup.rank in t.members], averaged)
        self._apply(averaged)
        self.drifted = False
        period = self.options.sync_every * self.options.move_every
        if self.method.moves(self.placement) and step % period == 0 and step < self.setup.plan.steps:
            self._move(step)

    def _outgoing(self) -> dict[str, list[Tensor]]:
        """What is averaged: for `pseudo_gradient` and coarse `parameters` the difference to the last common value."""
        values = self._parameters()
        if self.outer:
            values = list(torch._foreach_sub(self.outer, values))
        if self.diloco:
            return {"pseudo_gradient": values}
        moments = {name: self.moments.tensors(name) for name in MOMENTS}
        return {"parameters": values, **moments}

    def _average(self, step: int, transfers: list[Transfer], averaged: dict[str, list[Tensor]]) -> None:
        """The mean over each transfer's members, written back into the tensors."""
        groups = list(self.placement.groups)
        sent = []
        for transfer in transfers:
            what, index = transfer.part
            members = None if index is None else self.placement.members(groups[index], self.draw)
            flat = self.layout.gather(averaged[what], members, self.residents)
            sent.append((transfer, flat, averaged[what], members))
        self.setup.exchange.run(step, [(transfer, flat) for transfer, flat, _, _ in sent])
        for transfer, flat, tensors, members in sent:
            self.layout.scatter(tensors, flat.div_(len(transfer.members)), members, self.residents)

    def _apply(self, averaged: dict[str, list[Tensor]]) -> None:
        """Outer step; the averaged moments are in place already."""
        parameters = self._parameters()
        if self.diloco:
            alone = self.placement.replication == 1 and not self.options.outer_on_single_holder
            left_out = self.layout.sparse if alone else frozenset[int]()
            for index, (outer, delta) in enumerate(zip(self.outer, averaged["pseudo_gradient"], strict=True)):
                if index in left_out:
                    outer.copy_(parameters[index])
                else:
                    nesterov_(outer, delta, self.momentum[index], self.options.outer_lr, self.options.outer_momentum)
            torch._foreach_copy_(parameters, self.outer)
        elif self.outer:
            torch._foreach_sub_(self.outer, averaged["parameters"])
            torch._foreach_copy_(parameters, self.outer)

    def _move(self, step: int) -> None:
        """Send experts to their new holders and hold the residents of the next draw."""
        shipped = {"outer": self.outer, "momentum": self.momentum, "parameters": self._parameters()}
        transfers = [t for t in self.setup.plan.at(step) if t.phase == 1 and self.setup.rank in t.members]
        old, self.draw = self.residents, self.draw + 1
        self.residents = self.placement.residents(self.setup.rank, self.draw)
        migration = Migration(self.layout, self.placement, self.draw, old, self.residents)
        buffers = [migration.outgoing(t, shipped[t.part[0]], self.setup.rank == t.root) for t in transfers]
        self.setup.exchange.run(step, list(zip(transfers, buffers, strict=True)))
        for layer, residents in enumerate(self.residents):
            self.model.set_residents(layer, residents)
        shipped["parameters"] = self._parameters()  # the rows of those that stay have followed the ids
        values = "outer" if self.diloco else "parameters"
        migration.follow([*([self.outer, self.momentum] if self.diloco else []), *self.moments.banks()])
        migration.round_like(self.method.move_wire, shipped[values])
        if self.options.outer_momentum_of_moved == "ship":
            migration.round_like(self.method.move_wire, self.momentum)
        else:
            migration.forget(self.momentum)
        for transfer, buffer in zip(transfers, buffers, strict=True):
            if self.setup.rank != transfer.root:
                migration.incoming(transfer, shipped[transfer.part[0]], buffer)
        if self.diloco:
            torch._foreach_copy_(shipped["parameters"], self.outer)
        elif self.outer:
            torch._foreach_copy_(self.outer, shipped["parameters"])
        self.came, self.ramp_from = migration.came, step

    def _parameters(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.parameters]

    def _observe(self) -> None:
        self.observed = {}
        for report in self.model.routing():
            at = report.layer
            self.observed |= {f"routing_entropy/{at}": report.entropy, f"ghost_share/{at}": report.ghost_share}
            self.observed |= {f"load/{at}/{expert}": load for expert, load in enumerate(report.load)}

    def metrics(self) -> dict[str, float]:
        """Per layer, of the round that ended in this step: entropy of the load (1 is even), ghost share, load."""
        found, self.observed = self.observed, {}
        return found

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The assembled model: dense weights and all experts, each the mean of its holders; no masks, no ghosts."""
        if self.options.evaluate == "site":
            yield self.setup.model
            return
        values = self.outer if self.diloco else self._parameters()
        share = None if self.diloco or not self.drifted else 1 / self.placement.replication
        whole = self.layout.assemble(values, self.setup.control, self.placement, self.draw, self.setup.rank, share)
        own = [parameter.data for parameter in self.parameters]
        everything = tuple(range(self.setup.shape.experts))
        try:
            self._hold([everything] * self.setup.shape.layers, whole)
            yield self.setup.model
        finally:
            self._hold(self.residents, own)

    def _hold(self, residents: Sequence[Ids], tensors: Sequence[Tensor]) -> None:
        for layer, experts in enumerate(residents):
            self.model.set_residents(layer, experts)
        for parameter, tensor in zip(self.parameters, tensors, strict=True):
            parameter.data = tensor

    def _banks(self) -> list[list[Tensor]]:
        """Everything that holders share, each in the parameters' order."""
        moments = [] if self.diloco else [self.moments.tensors(name) for name in MOMENTS]
        kept = [bank for bank in (self.outer, self.momentum) if bank]
        return [*kept, *moments] if self.diloco else [self._parameters(), *kept, *moments]

    def catch_up(self, root: int, behind: tuple[int, ...], present: tuple[int, ...]) -> list[tuple[Transfer, Tensor]]:
        """Dense tensors come from `root`, experts from their first holder who is there and not behind."""
        found = []
        sources: list[tuple[int, tuple[int, ...], Sequence[Ids] | None]] = [(root, behind, None)]
        for holders in self.placement.groups:
            if (ranks := source_for(holders, behind, present)) is not None:
                sources.append((*ranks, self.placement.members(holders, self.draw)))
        for index, (source, takers, members) in enumerate(sources):
            if self.setup.rank in (source, *takers):
                flat = torch.cat([self.layout.gather(bank, members, self.residents) for bank in self._banks()])
                found.append((to_those_behind(f"{CATCH_UP}/{index}", flat.numel(), source, takers), flat))
        return found

    @torch.no_grad()
    def take_over(self, received: list[tuple[Transfer, Tensor]]) -> None:
        mine = [h for h in self.placement.groups if self.setup.rank in h]
        members = [None, *(self.placement.members(holders, self.draw) for holders in mine)]
        for (_, flat), ids in zip(received, members, strict=True):
            for bank, part in zip(self._banks(), flat.chunk(len(self._banks())), strict=True):
                self.layout.scatter(bank, part, ids, self.residents)
        if self.diloco:
            torch._foreach_copy_(self._parameters(), self.outer)

    def state(self) -> dict[str, Tensor]:
        ramp_from = -1 if self.ramp_from is None else self.ramp_from
        extra = {"draw": torch.tensor(self.draw), "ramp_from": torch.tensor(ramp_from)}
        outer = {f"outer.{i}": tensor for i, tensor in enumerate(self.outer)}
        momentum = {f"momentum.{i}": tensor for i, tensor in enumerate(self.momentum)}
        return {**super().state(), **extra, **outer, **momentum}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.moments = Moments(self.optimizer, self.parameters)
        self.draw, ramp_from = int(state["draw"]), int(state["ramp_from"])
        self.ramp_from = ramp_from if ramp_from >= 0 else None
        previous = self.placement.residents(self.setup.rank, max(0, self.draw - 1))
        self.residents = self.placement.residents(self.setup.rank, self.draw)
        self.came = [tuple(sorted(set(new) - set(had))) for new, had in zip(self.residents, previous, strict=True)]
        self._hold(self.residents, [parameter.data.clone() for parameter in self.parameters])
        for i, tensor in enumerate(self.outer):
            tensor.copy_(state[f"outer.{i}"])
        for i, tensor in enumerate(self.momentum):
            tensor.copy_(state[f"momentum.{i}"])

    def memory(self) -> dict[str, int]:
        found = super().memory()
        if self.outer:
            found["outer_parameters" if self.diloco else "reference"] = tensor_bytes(self.outer)
        if self.momentum:
            found["outer_momentum"] = tensor_bytes(self.momentum)
        return found


METHOD = Fomoe
