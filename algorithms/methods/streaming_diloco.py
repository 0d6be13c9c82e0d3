"""Streaming DiLoCo: fragments of the model synchronised in turn, while training goes on (arXiv 2501.18512).

    fragment p starts its synchronisation after the steps t with (t - t_p) mod H == 0:
        Delta_p = mean_m (theta_p,ref - theta_p^m(t))             sent in FP4 (E3M0), summed in fp32
    and uses it `overlap` (tau) steps later:
        theta~_p = Nesterov(theta_p,ref, Delta_p)                 eta = 0.4, mu = 0.9;  theta_p,ref = theta~_p
        theta_p  = alpha theta_p + (1 - alpha) theta~_p           local progress made meanwhile is kept in part

A fragment is `layers_per_fragment` layers, strided (p, p + P, p + 2P, ...) or sequential; what is outside the layers is
a fragment of its own. The evaluated model is theta_ref. After the last step everything is synchronised once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from algorithms.exchange import Handle
from algorithms.inner import flatten, tensor_bytes, unflatten_into
from algorithms.inner_worker import InnerWorker
from algorithms.method import Method, Options
from algorithms.outer import nesterov_
from algorithms.shape import ModelShape
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer, WireType


class StreamingOptions(Options):
    wire_dtype: WireType = WireType.FP4
    sync_every: int = Field(default=100, ge=1, le=10**9)  # H
    layers_per_fragment: int = Field(default=3, ge=1, le=10**9)
    pattern: Literal["strided", "sequential"] = "strided"
    overlap: int = Field(default=1, ge=0, le=10**9)  # tau, inner steps
    alpha: float = Field(default=0.5, ge=0, le=1)
    outer_lr: float = Field(default=0.4, gt=0, le=1e6)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)


class StreamingDiloco(Method[StreamingOptions]):
    name = "streaming_diloco"
    summary = "DiLoCo by fragments, overlapped with training, in FP4"
    Options = StreamingOptions
    may_skip_steps = True
    after_loss = "resync"

    def fragments(self, shape: ModelShape) -> list[list[int]]:
        """Indices of `shape.parameters`, by fragment; the last is what lies outside the layers."""
        count = -(-shape.layers // self.options.layers_per_fragment)
        found: list[list[int]] = [[] for _ in range(count + 1)]
        for index, parameter in enumerate(shape.parameters):
            if parameter.layer is None:
                found[-1].append(index)
            elif self.options.pattern == "strided":
                found[parameter.layer % count].append(index)
            else:
                found[parameter.layer // self.options.layers_per_fragment].append(index)
        return [fragment for fragment in found if fragment]  # somebody's own module may have nothing outside its layers

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        options, fragments = self.options, self.fragments(shape)
        recurrences, final = [], []
        for p, fragment in enumerate(fragments):
            elements = sum(shape.parameters[index].elements for index in fragment)
            everyone = tuple(range(sites))
            blocking = Transfer(f"fragment/{p}", elements, everyone, options.wire_dtype, part=("fragment", p))
            streamed = replace(blocking, overlap=options.overlap)
            first = max(1, (p + 1) * options.sync_every // len(fragments))  # spread over the period
            regular = Recurrence((streamed,), options.sync_every, first, steps - options.overlap)
            recurrences.append(regular)
            if options.overlap or not regular.happens_at(steps):
                final.append(blocking)
        return Plan(sites, steps, (*recurrences, Recurrence(tuple(final), 1, steps, steps)))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        size = 4 * shape.count()
        return {
            **self.local_memory(shape),
            "outer_parameters": size,
            "outer_momentum": size,
        }

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, which mix local and outer ones, outer parameters and outer momentum."""
        return 3 * shape.count()

    def worker(self, setup: WorkerSetup) -> Worker:
        return StreamingWorker(self, setup)


class Fragment:
    """Parameters with their outer state, flat (elements,)."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.outer = flatten(parameters)
        self.momentum = torch.zeros_like(self.outer)


class StreamingWorker(InnerWorker):
    def __init__(self, method: StreamingDiloco, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.options = method.options
        by_name = dict(setup.model.named_parameters())
        described = setup.shape.parameters
        self.fragments = [Fragment([by_name[described[i].name] for i in f]) for f in method.fragments(setup.shape)]
        self.under_way: list[tuple[int, Fragment, Handle, Tensor]] = []  # due after this step

    @torch.no_grad()
    def synchronise(self, step: int, lr: float) -> None:
        self._finish(step)
        for transfer in self.setup.plan.at(step):
            _, place = transfer.part
            assert place is not None
            fragment = self.fragments[place]
            delta = fragment.outer - flatten(fragment.parameters)
            handle = self.setup.exchange.start(step, transfer, delta)
            self.under_way.append((step + transfer.overlap, fragment, handle, delta))
        self._finish(step)

    def _finish(self, step: int) -> None:
        """Apply what is due: the outer step, then the local fragment mixed with its result."""
        due = [entry for entry in self.under_way if entry[0] <= step]
        self.under_way = [entry for entry in self.under_way if entry[0] > step]
        for _, fragment, handle, delta in due:
            handle.wait()
            delta.div_(self.setup.world)
            nesterov_(fragment.outer, delta, fragment.momentum, self.options.outer_lr, self.options.outer_momentum)
            share = 1 - self.options.alpha
            unflatten_into(fragment.parameters, flatten(fragment.parameters).lerp_(fragment.outer, share))

    @contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        own = [flatten(fragment.parameters) for fragment in self.fragments]
        for fragment in self.fragments:
            unflatten_into(fragment.parameters, fragment.outer)
        try:
            yield self.setup.model
        finally:
            for fragment, flat in zip(self.fragments, own, strict=True):
                unflatten_into(fragment.parameters, flat)

    def state(self) -> dict[str, Tensor]:
        """What is under way is waited for and kept as it came, to be applied when due."""
        found = super().state()
        for p, fragment in enumerate(self.fragments):
            found |= {f"outer.{p}": fragment.outer, f"momentum.{p}": fragment.momentum}
        for due, fragment, handle, delta in self.under_way:
            handle.wait()
            found[f"under_way.{self.fragments.index(fragment)}.{due}"] = delta
        return found

    def forget(self) -> None:
        super().forget()
        self.under_way = []

    def own(self, name: str) -> bool:
        return name.startswith(("inner.", "under_way."))

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.under_way = []
        for p, fragment in enumerate(self.fragments):
            fragment.outer.copy_(state[f"outer.{p}"])
            fragment.momentum.copy_(state[f"momentum.{p}"])
        for name, delta in state.items():
            if name.startswith("under_way."):
                _, place, due = name.split(".")
                self.under_way.append((int(due), self.fragments[int(place)], _Done(), delta.clone()))

    def memory(self) -> dict[str, int]:
        return {
            **super().memory(),
            "outer_parameters": tensor_bytes(fragment.outer for fragment in self.fragments),
            "outer_momentum": tensor_bytes(fragment.momentum for fragment in self.fragments),
        }


class _Done:
    """A transfer whose result is there."""

    def wait(self) -> None:
        return


METHOD = StreamingDiloco
