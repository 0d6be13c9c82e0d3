"""DES-LOC: local Adam with its own period for each state (arXiv 2505.22549).

    x, u, v = AdamW on the worker's own data
    x = mean_m x   every K_x steps;      u = mean_m u   every K_u;      v = mean_m v   every K_v

Defaults K_u = 3 K_x and K_v = 6 K_x: a moment that forgets slowly need not be averaged often. Per step it moves
1/K_x + 1/K_u + 1/K_v of the model where DDP moves all of it. `outer_momentum` and `outer_lr` put a Nesterov step on the
averaged parameters instead of the plain mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.averaging import MOMENTS, Moments, control_mean, swapped_in
from algorithms.inner import flatten, tensor_bytes, unflatten_into
from algorithms.inner_worker import InnerWorker
from algorithms.method import Method, Options
from algorithms.outer import nesterov_
from algorithms.periodic import lossy, periodic
from algorithms.settings import OptimizerName
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer


class DeslocOptions(Options):
    sync_every: int = Field(default=256, ge=1, le=10**9)  # K_x
    k_u: int | None = Field(default=None, ge=1, le=10**9)  # default 3 K_x
    k_v: int | None = Field(default=None, ge=1, le=10**9)  # default 6 K_x
    outer_lr: float = Field(default=1.0, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.0, ge=0, lt=1)

    @property
    def periods(self) -> tuple[int, int]:
        return self.k_u or 3 * self.sync_every, self.k_v or 6 * self.sync_every

    @property
    def plain(self) -> bool:
        """Whether the outer step is the mean itself."""
        return self.outer_lr == 1 and not self.outer_momentum


class Desloc(Method[DeslocOptions]):
    name = "desloc"
    summary = "local AdamW; parameters and each moment averaged at periods of their own"
    Options = DeslocOptions
    may_skip_steps = True

    @property
    def inner_optimizers(self) -> tuple[OptimizerName, ...]:
        return ("adamw", "adopt")  # both moments are averaged

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, everyone = self.options, tuple(range(sites))
        parameters = Transfer("parameters", shape.count(), everyone, options.wire_dtype)
        recurrences = list(periodic((parameters,), options.sync_every, steps))
        for name, every in zip(MOMENTS, options.periods, strict=True):
            moment = Transfer(name, shape.count(), everyone, options.wire_dtype)
            recurrences.append(Recurrence((moment,), every, every, steps))
        return Plan(sites, steps, tuple(recurrences))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        found = self.local_memory(shape)
        if keeps_reference(self.options):
            found["reference"] = size
        if self.options.outer_momentum:
            found["outer_momentum"] = size
        return found

    def worker(self, setup: WorkerSetup) -> Worker:
        return DeslocWorker(self.options, setup)


def keeps_reference(options: DeslocOptions) -> bool:
    """Parameters travel as they are where the wire is exact, and as differences to the last mean where it rounds."""
    return lossy(options.wire_dtype) or not options.plain


class DeslocWorker(InnerWorker):
    def __init__(self, options: DeslocOptions, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options = options
        self.moments = Moments(self.optimizer, self.parameters)
        self.reference = flatten(self.parameters) if keeps_reference(options) else None
        self.momentum = flatten(self.parameters).zero_() if options.outer_momentum else None
        self.drifted = False

    def local_update(self, step: int, lr: float) -> None:
        super().local_update(step, lr)
        self.drifted = True

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        sent: list[tuple[Transfer, Tensor]] = []
        for transfer in self.setup.plan.at(step):
            tensors = self.parameters if transfer.name == "parameters" else self.moments.tensors(transfer.name)
            flat = flatten(tensors)
            if transfer.name == "parameters" and self.reference is not None:
                flat = self.reference - flat
            sent.append((transfer, flat))
        self.setup.exchange.run(step, sent)
        for transfer, flat in sent:
            flat.div_(self.setup.world)
            if transfer.name == "parameters":
                self._apply(flat)
            else:
                unflatten_into(self.moments.tensors(transfer.name), flat)

    def _apply(self, mean: Tensor) -> None:
        """`mean` of the parameters, or of their differences to the reference."""
        if self.reference is None:
            unflatten_into(self.parameters, mean)
        else:
            if self.momentum is None:
                self.reference.sub_(mean, alpha=self.options.outer_lr)
            else:
                nesterov_(self.reference, mean, self.momentum, self.options.outer_lr, self.options.outer_momentum)
            unflatten_into(self.parameters, self.reference)
        self.drifted = False

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """The mean of the workers' models; right after a synchronisation that is everyone's."""
        if not self.drifted:
            yield self.setup.model
            return
        mean = flatten(self.parameters)
        control_mean(self.setup.control, "desloc/evaluation", mean)
        with swapped_in(self.parameters, mean):
            yield self.setup.model

    def common(self) -> Tensor | None:
        return self.reference

    def state(self) -> dict[str, Tensor]:
        extra = {"reference": self.reference, "momentum": self.momentum}
        kept = {name: tensor for name, tensor in extra.items() if tensor is not None}
        return {**super().state(), **kept}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.moments = Moments(self.optimizer, self.parameters)
        if self.reference is not None:
            self.reference.copy_(state["reference"])
        if self.momentum is not None:
            self.momentum.copy_(state["momentum"])

    def memory(self) -> dict[str, int]:
        found = super().memory()
        if self.reference is not None:
            found["reference"] = tensor_bytes([self.reference])
        if self.momentum is not None:
            found["outer_momentum"] = tensor_bytes([self.momentum])
        return found


METHOD = Desloc
