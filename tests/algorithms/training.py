"""Training by a method on workers that are threads of this process, which exchange without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.exchange import Exchange, LocalExchange, local_group
from algorithms.method import Method, find
from algorithms.settings import InnerOptimizer, LearningRateSchedule
from algorithms.shape import ModelShape
from algorithms.site_group import SiteExchange, SiteGroup
from algorithms.worker import Worker, WorkerSetup
from harness.worker.model import Transformer, build_model
from netsim.traffic import Plan
from tests.threads import together

DENSE = ModelShape(layers=2, width=16, heads=2, vocabulary=19, sequence=8, ffn_width=24, gated=True)
MOE = ModelShape(kind="moe", layers=2, width=16, heads=2, vocabulary=19, sequence=8, experts=8, top_k=2, norm="peri")
ADAMW = InnerOptimizer(lr=1e-2, weight_decay=0.01)
SGD = InnerOptimizer(name="sgd", lr=0.1, clip=0)


class Exact(Transformer):
    """Computes its loss in float64, where the ordinary one rounds to float32."""

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        logits_BTV = super().forward(tokens_BT)
        if targets_BT is None:
            return logits_BTV
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


@dataclass
class Site:
    """What one worker leaves behind; the first of its site."""

    worker: Worker
    model: Transformer
    losses: list[float] = field(default_factory=list)
    evaluations: dict[int, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    gradients: list[Tensor] = field(default_factory=list)  # flat, of every step in which it trained
    trajectory: list[Tensor] = field(default_factory=list)  # flat parameters, before the first step and after each

    @property
    def parameters(self) -> Tensor:
        """Copies, (elements,)."""
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])


@dataclass
class Training:
    method: Method[Any]
    plan: Plan
    sites: list[Site]
    exchange: LocalExchange
    others: list[Site] = field(default_factory=list)  # of sites with several workers, all but the first

    @property
    def payload_bytes(self) -> int:
        return self.exchange.group_payload_bytes


def tokens(shape: ModelShape, step: int, rank: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A batch that follows from the step and the rank: inputs and targets (batch, sequence)."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    found = torch.randint(shape.vocabulary, (batch, shape.sequence + 1), generator=generator)
    return found[:, :-1], found[:, 1:]


def train(
    name: str,
    options: dict[str, Any],
    shape: ModelShape = DENSE,
    sites: int = 3,
    steps: int = 6,
    *,
    seed: int = 1,
    optimizer: InnerOptimizer = ADAMW,
    double: bool = True,
    evaluate_at: Sequence[int] = (),
    data: Callable[[int, int], tuple[Tensor, Tensor]] | None = None,
    resume_at: int | None = None,
    watch: Callable[[int, int, Worker], None] | None = None,
    members: int = 1,
) -> Training:
    """`double`: fp64 on the wire and in memory. `watch(step, rank, worker)` is called after every step.

    `resume_at`: after this step every worker is thrown away and another goes on from its state and parameters.
    `members`: workers of each site, which share its batch.
    """
    if double:
        options = {"wire_dtype": "fp64", **options}
    method = find(name, options, "test", optimizer)
    plan = method.plan(shape, sites, steps, seed)
    schedule = method.schedule(LearningRateSchedule(optimizer.lr, 2, steps))
    exchanges, controls = local_group(sites), local_group(sites)
    inside = [local_group(members) for _ in range(sites)]

    def make(rank: int, member: int) -> Site:
        model = build_model(shape, seed, method.view(shape, sites, rank, seed))
        if double:
            model = model.double()
            model.__class__ = Exact
        exchange: Exchange = exchanges[rank]
        control: Exchange = controls[rank]
        group = None
        if members > 1:
            group = SiteGroup(inside[rank][member])
            exchange = SiteExchange(group, exchange if group.is_leader else None, rank, sites)
            control = SiteExchange(group, control if group.is_leader else None, rank, sites)
        setup = WorkerSetup(model, shape, plan, rank, exchange, control, method.inner, seed, group)
        return Site(method.worker(setup), model)

    def work(rank: int, member: int) -> Site:
        site = make(rank, member)
        group = site.worker.setup.site
        site.trajectory.append(site.parameters)
        for step in range(1, steps + 1):
            if rank in plan.active(step):
                inputs, targets = data(step, rank) if data else tokens(shape, step, rank)
                share = len(inputs) // members
                inputs, targets = (t[share * member : share * (member + 1)] for t in (inputs, targets))
                site.worker.begin(step)
                loss = site.worker.module(inputs, targets)
                loss.backward()
                if group is not None:
                    site.worker.average_gradients(step, group)
                    loss.data.fill_(group.mean(step, "loss", float(loss.detach())))
                site.losses.append(float(loss.detach()))
                site.gradients.append(
                    torch.cat([p.grad.reshape(-1) for p in site.model.parameters() if p.grad is not None])
                )
                site.worker.local_update(step, schedule.lr(step))
            site.worker.synchronise(step, schedule.lr(step))
            site.trajectory.append(site.parameters)
            if step == 1:
                site.memory = site.worker.memory()
            if watch:
                watch(step, rank, site.worker)
            if step in evaluate_at:
                with torch.no_grad(), site.worker.evaluation() as model:
                    model.eval()
                    site.evaluations[step] = float(model(*tokens(shape, 0, 0, batch=8)))
                    model.train()
            if step == resume_at:
                site = resumed(site, make(rank, member))
        return site

    everyone = [(rank, member) for rank in range(sites) for member in range(members)]
    trained = dict(zip(everyone, together(everyone, lambda worker: work(*worker)), strict=True))
    leaders, others = ([trained[worker] for worker in everyone if (worker[1] > 0) is other] for other in (False, True))
    return Training(method, plan, leaders, exchanges[0], others)


def resumed(old: Site, new: Site) -> Site:
    """`new` after it was given `old`'s parameters and state, as from a checkpoint."""
    state = {name: value.clone() for name, value in old.worker.state().items()}
    with torch.no_grad():
        for mine, theirs in zip(new.model.parameters(), old.model.parameters(), strict=True):
            mine.copy_(theirs)
    new.worker.load(state)
    new.losses, new.evaluations, new.memory = old.losses, old.evaluations, old.memory
    new.gradients, new.trajectory = old.gradients, old.trajectory
    return new
