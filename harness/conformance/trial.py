"""Short training runs by a method: workers are threads that exchange in memory or over TCP on loopback."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from algorithms.exchange import Exchange, local_group
from algorithms.method import Method
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from harness.transport.wan_exchange import WanExchange
from harness.worker.model import TrainedModel, build_trained_model
from netsim.traffic import Algorithm, Plan

SITES, STEPS, SEED = 4, 7, 1
DENSE = ModelShape(name="dense", layers=2, width=16, heads=2, vocabulary=19, sequence=8, ffn_width=24, gated=True)
MOE = ModelShape(
    name="mixture of experts",
    kind="moe",
    layers=2,
    width=16,
    heads=2,
    vocabulary=19,
    sequence=8,
    experts=8,
    top_k=2,
    norm="peri",
)
_LEFT_OUT = (torch.nn.Module, Method, Plan, type)  # what tensors are not sought in
_ports = itertools.count(21000 + os.getpid() * 11 % 20000)


@dataclass
class TrialWorker:
    """What one worker leaves. memory: counted after the last step; held: bytes of all tensors found in it then."""

    worker: Worker
    parameters: Tensor
    evaluation: float
    memory: dict[str, int]
    held: int
    state: dict[str, Tensor]
    sent: dict[tuple[int, str], int] = field(default_factory=dict)  # by the ledger, over TCP


@contextmanager
def in_memory(sites: int) -> Iterator[Sequence[Exchange]]:
    yield local_group(sites, 30.0)


@contextmanager
def over_tcp(sites: int) -> Iterator[Sequence[WanExchange]]:
    """Every worker with an address of its own in 127/8, all-reduces direct."""
    port, addresses = next(_ports), [f"127.0.2.{rank + 1}" for rank in range(sites)]

    def connect(rank: int) -> WanExchange:
        return WanExchange.connect(
            rank, sites, addresses, port, "conformance", 1, lambda transfer: Algorithm.DIRECT, timeout=20.0
        )

    exchanges = in_threads(sites, connect)
    with ExitStack() as stack:
        stack.callback(lambda: in_threads(sites, lambda rank: exchanges[rank].close()))
        yield exchanges


def in_threads(sites: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(rank)` in a thread per rank; the first error of any is raised."""
    found: dict[int, Any] = {}
    errors: list[BaseException] = []

    def body(rank: int) -> None:
        try:
            found[rank] = work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(rank,), daemon=True) for rank in range(sites)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(sites)]


def train(
    method: Method[Any],
    shape: ModelShape,
    exchanges: Sequence[Exchange],
    plan: Plan,
    resume_at: int | None = None,
) -> list[TrialWorker]:
    """`plan.steps` steps. resume_at: after this step every worker is replaced by one that loads its state."""
    sites = plan.sites
    controls = local_group(sites, 30.0)

    def work(rank: int) -> TrialWorker:
        trained = _model(method, shape, plan, rank)
        worker = _worker(method, trained, shape, plan, exchanges[rank], controls[rank])
        for step in range(1, plan.steps + 1):
            lr = 1e-2 * min(1.0, step / 2)
            if rank in plan.active(step):
                inputs, targets = batch(shape, step, rank)
                worker.begin(step)
                torch.autograd.backward(trained.loss(worker.module(inputs), targets))
                worker.local_update(step, lr)
            worker.synchronise(step, lr)
            if step == resume_at:
                trained = _model(method, shape, plan, rank)
                worker = _resumed(worker, _worker(method, trained, shape, plan, exchanges[rank], controls[rank]))
        held = held_bytes(worker)
        with torch.no_grad(), worker.evaluation() as model:
            inputs, targets = batch(shape, 0, 0)
            evaluation = float(trained.loss(model(inputs), targets))
        parameters = torch.cat([p.detach().reshape(-1) for p in worker.setup.model.parameters()])
        exchange = exchanges[rank]
        sent = dict(exchange.ledger.by_transfer()) if isinstance(exchange, WanExchange) else {}
        return TrialWorker(worker, parameters, evaluation, worker.memory(), held, worker.state(), sent)

    return in_threads(sites, work)


def batch(shape: ModelShape, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (2, sequence) that follow from step and rank."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    tokens = torch.randint(shape.vocabulary, (2, shape.sequence + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def _model(method: Method[Any], shape: ModelShape, plan: Plan, rank: int) -> TrainedModel:
    return build_trained_model(shape, SEED, method.view(shape, plan.sites, rank, SEED), balance_weight=0.0)


def _worker(
    method: Method[Any], trained: TrainedModel, shape: ModelShape, plan: Plan, exchange: Exchange, control: Exchange
) -> Worker:
    model = trained.module
    return method.worker(WorkerSetup(model, shape, plan, exchange.rank, exchange, control, method.inner, SEED))


def _resumed(old: Worker, new: Worker) -> Worker:
    """`new` with the parameters and the state of `old`, as from a checkpoint."""
    state = {name: value.clone() for name, value in old.state().items()}
    with torch.no_grad():
        for mine, theirs in zip(new.setup.model.parameters(), old.setup.model.parameters(), strict=True):
            mine.copy_(theirs)
    new.load(state)
    return new


def held_bytes(worker: Worker) -> int:
    """Bytes of all tensors of more than one number that a worker holds: its model's parameters, as many bytes of
    gradients, and whatever its attributes lead to."""
    parameters = list(worker.setup.model.parameters())
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters}
    size = sum(p.numel() * p.element_size() for p in parameters)
    known = set(storages)
    extra: dict[int, int] = {}
    seen: set[int] = set()
    waiting: list[Any] = [value for name, value in vars(worker).items() if name not in ("setup", "module")]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            place = value.untyped_storage().data_ptr()
            if place not in known and value.numel() > 1 and not isinstance(value, torch.nn.Parameter):
                extra[place] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        elif isinstance(value, torch.optim.Optimizer):
            waiting += [entry for state in value.state.values() for entry in state.values()]
        elif hasattr(value, "__dict__") and not isinstance(value, _LEFT_OUT) and not callable(value):
            waiting += vars(value).values()
    return 2 * size + sum(extra.values())
