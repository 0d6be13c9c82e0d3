"""Eager updates for Streaming DiLoCo: an all-reduce may take a whole round (Kale et al., arXiv 2502.12996).

At its synchronisation t a fragment's worker m knows its own outer gradient, but everyone's only of the round before:

    Delta^m = theta_ref^m - theta^m(t)                                      sent now, awaited at t + H
    D^m     = (1/M) Delta^m + [ mean_j Delta^j(t - H) - (1/M) Delta^m(t - H) ]
    theta_ref^m = theta^m = Nesterov(theta_ref^m, D^m)

The first round has no mean and takes the own outer gradient alone. Fragments are those of streaming_diloco. Workers
differ by what they applied eagerly, so the evaluated model is the mean of theta_ref. The last step waits for everything
and takes the mean of the last outer gradients beside what was still under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.averaging import control_mean, swapped_in
from algorithms.inner import flatten, tensor_bytes, unflatten_into
from algorithms.method import Method, Options
from algorithms.methods.streaming_diloco import Fragment, StreamingDiloco, StreamingOptions, StreamingWorker
from algorithms.outer import nesterov_
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Transfer, WireType


class EagerOptions(Options):
    wire_dtype: WireType = WireType.FP4
    sync_every: int = Field(default=30, ge=1, le=10**9)  # H, also the steps that an all-reduce may take
    layers_per_fragment: int = Field(default=3, ge=1, le=10**9)
    outer_lr: float = Field(default=0.4, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)


class EagerDiloco(Method[EagerOptions]):
    name = "eager_diloco"
    summary = "Streaming DiLoCo whose all-reduces take a round, with the own part applied at once"
    Options = EagerOptions
    may_skip_steps = True
    after_loss = "resync"

    @property
    def as_streaming(self) -> StreamingDiloco:
        """The method whose fragments and plan these are."""
        given = self.options.model_dump(exclude={"inner_optimizer"})
        return StreamingDiloco(StreamingOptions(**given, overlap=self.options.sync_every, alpha=0.0), self.inner)

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        return self.as_streaming.plan(shape, sites, steps, seed)

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        return {**self.as_streaming.memory(shape, sites, rank, seed), "sent_gradients": 4 * shape.count()}

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, outer parameters and outer momentum."""
        return 3 * shape.count()

    def worker(self, setup: WorkerSetup) -> Worker:
        return EagerWorker(self.as_streaming, setup)


class EagerWorker(StreamingWorker):
    """`sent`: the own outer gradient of each fragment that is under way, flat."""

    def __init__(self, method: StreamingDiloco, setup: WorkerSetup) -> None:
        super().__init__(method, setup)
        self.sent = [torch.zeros_like(fragment.outer) for fragment in self.fragments]

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        for transfer in self.setup.plan.at(step):
            _, place = transfer.part
            assert place is not None
            fragment = self.fragments[place]
            delta = fragment.outer - flatten(fragment.parameters)
            others = self._arrived(place)  # what the others found a round ago, if anything was sent
            if step == self.setup.plan.steps:
                self._apply(fragment, self._mean(step, transfer, delta) + (0 if others is None else others))
                continue
            own = delta / self.setup.world if others is not None else delta.clone()
            self.sent[place].copy_(delta)
            handle = self.setup.exchange.start(step, transfer, delta)
            self.under_way.append((step + transfer.overlap, fragment, handle, delta))
            self._apply(fragment, own if others is None else own + others)

    def _arrived(self, place: int) -> Tensor | None:
        """mean_j Delta^j - (1/M) Delta^m of the fragment's last round."""
        fragment = self.fragments[place]
        for entry in self.under_way:
            if entry[1] is fragment:
                self.under_way.remove(entry)
                _, _, handle, delta = entry
                handle.wait()
                return delta.div(self.setup.world).sub_(self.sent[place], alpha=1 / self.setup.world)
        return None

    def _mean(self, step: int, transfer: Transfer, delta: Tensor) -> Tensor:
        self.setup.exchange.run(step, [(transfer, delta)])
        return delta.div_(self.setup.world)

    def _apply(self, fragment: Fragment, delta: Tensor) -> None:
        nesterov_(fragment.outer, delta, fragment.momentum, self.options.outer_lr, self.options.outer_momentum)
        unflatten_into(fragment.parameters, fragment.outer)

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        own = flatten(self.parameters)
        for fragment in self.fragments:
            unflatten_into(fragment.parameters, fragment.outer)
        mean = flatten(self.parameters)
        unflatten_into(self.parameters, own)
        control_mean(self.setup.control, "eager/evaluation", mean)
        with swapped_in(self.parameters, mean):
            yield self.setup.model

    def own(self, name: str) -> bool:
        return super().own(name) or name.startswith("sent.")

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **{f"sent.{place}": tensor for place, tensor in enumerate(self.sent)}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        for place, tensor in enumerate(self.sent):
            tensor.copy_(state[f"sent.{place}"])

    def memory(self) -> dict[str, int]:
        return {**super().memory(), "sent_gradients": tensor_bytes(self.sent)}


METHOD = EagerDiloco
