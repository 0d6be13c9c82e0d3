"""DDP: data-parallel training that averages gradients at every step, by torch's own DistributedDataParallel.

    g_t     = mean_m g_t^m          bucket by bucket, while the backward pass goes on
    theta_t = AdamW(theta_{t-1}, clip(g_t))

The baseline is the strong one: buckets of 25 MB (the first of 1 MB) in the order in which gradients become ready, each
all-reduced as soon as it is complete (Li et al. 2020, "PyTorch Distributed"). A communication hook hands the buckets to
the exchange, so that they travel like every other method's transfers.
"""

import os
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor
from torch._C._distributed_c10d import GradBucket, HashStore
from torch.nn.parallel import DistributedDataParallel

from algorithms.exchange import Handle
from algorithms.inner import update
from algorithms.inner_worker import GradientWorker
from algorithms.method import Method, Options
from algorithms.own_model import own_module
from algorithms.own_model.module_shape import ModuleShape
from algorithms.shape import ModelShape
from algorithms.site_group import SiteGroup
from algorithms.worker import Worker, WorkerSetup
from netsim.traffic import Plan, Recurrence, Transfer

FIRST_BUCKET_BYTES = 1 << 20  # torch.distributed._DEFAULT_FIRST_BUCKET_BYTES
GRADIENT_BYTES = 4  # gradients are fp32 in memory, whatever the wire type


class DdpOptions(Options):
    bucket_mb: float = Field(default=25.0, gt=0, le=1e6)  # torch's default


def buckets(elements: list[int], cap_bytes: int) -> list[int]:
    """Numbers per bucket of gradients that become ready in this order: a bucket closes when it reaches its cap."""
    found, size = [0], 0
    for count in elements:
        found[-1] += count
        size += count * GRADIENT_BYTES
        if size >= (min(FIRST_BUCKET_BYTES, cap_bytes) if len(found) == 1 else cap_bytes):
            found.append(0)
            size = 0
    return [count for count in found if count]


class Ddp(Method[DdpOptions]):
    name = "ddp"
    summary = "gradients averaged at every step"
    Options = DdpOptions
    joins_batches = True
    after_loss = "rollback"

    def plan(self, shape: ModelShape, sites: int, steps: int, seed: int = 0) -> Plan:
        # Gradients become ready from the last layer to the first; the tied embedding is used first, so it comes last.
        sizes = [p.elements for p in reversed(shape.parameters)]
        total, done, transfers = sum(sizes), 0, []
        for index, count in enumerate(buckets(sizes, int(self.options.bucket_mb * 2**20))):
            done += count
            transfers.append(
                Transfer(f"gradient/{index}", count, tuple(range(sites)), self.options.wire_dtype, ready=done / total)
            )
        return Plan(sites, steps, (Recurrence(tuple(transfers), every=1, first=1, last=steps),))

    def memory(self, shape: ModelShape, sites: int, rank: int = 0, seed: int = 0) -> dict[str, int]:
        return self.local_memory(shape)

    def shared(self, shape: ModelShape, sites: int) -> int:
        """Weights, moments and step counters."""
        return shape.count() + self.moment_elements(shape) + self.inner.counters(shape.parameters)

    def preload(self) -> None:
        """torch's wrapper asks torch's compiler how to reduce gradients, and imports it for that: a second's work."""
        import_module("torch._dynamo")

    def worker(self, setup: WorkerSetup) -> Worker:
        return DdpWorker(self, setup)


class DdpWorker(GradientWorker):
    """Wraps the model; buckets go to the exchange from the hook and are awaited in `synchronise`.

    DDP's own process group has this worker as its only member: nothing but bucketing and the hook is used of it.
    """

    def __init__(self, method: Ddp, setup: WorkerSetup) -> None:
        super().__init__(setup)
        self.wire = method.options.wire_dtype
        self._under_way: list[tuple[Handle, Tensor]] = []
        self._inside: list[tuple[Handle, Transfer, Tensor]] = []  # buckets being summed inside the site
        self._step, self._ready = 0, 0
        self._total = sum(p.numel() for p in setup.model.parameters())
        # A list, since a single cap does away with the small first bucket. Typed int, but fractions of a MiB work.
        cap = method.options.bucket_mb
        caps: list[Any] = [min(FIRST_BUCKET_BYTES / 2**20, cap), cap]
        self.ddp = DistributedDataParallel(
            setup.model,
            process_group=_own_group(),
            init_sync=False,  # every worker builds the same model from the same seed
            forward_sync_buffers=False,
            bucket_cap_mb_list=caps,
            gradient_as_bucket_view=True,
        )
        self._learning_order = True
        self.ddp.register_comm_hook(self, _hand_over)
        self.module = self.ddp
        self._learn_order()

    def _learn_order(self) -> None:
        """Two passes that nobody hears of: DDP buckets anew after the first, in the order in which gradients came.

        So the buckets are those of the plan from the first step on, and a worker that comes late has the same as those
        that have been training for long.
        """
        own = isinstance(self.setup.shape, ModuleShape)  # which may take sequences of one length alone
        tokens = torch.zeros(1, self.setup.shape.sequence if own else 2, dtype=torch.long)
        for _ in range(2):
            output = self.ddp(tokens)
            torch.autograd.backward(own_module.loss(self.setup.model, output, tokens) if own else output.sum())
        self.ddp.zero_grad(set_to_none=True)
        self._learning_order = False

    def begin(self, step: int) -> None:
        self._step, self._ready = step, 0

    def hand_over(self, bucket: GradBucket) -> Tensor:
        """Start the all-reduce of a complete bucket; the result lands in the gradients' own storage."""
        gradients: Tensor = bucket.buffer()
        if self._learning_order:
            return gradients
        self._ready += gradients.numel()
        transfer = Transfer(
            f"gradient/{bucket.index()}",
            gradients.numel(),
            tuple(range(self.setup.world)),
            self.wire,
            ready=self._ready / self._total,
        )
        if self.setup.site is None:
            self._send(transfer, gradients)
        else:
            self._send_averaged(self.setup.site)  # the bucket before, which is done by now unless others are late
            handle = self.setup.site.start_sum(self._step, transfer.name, gradients)
            self._inside.append((handle, transfer, gradients))
        return gradients

    def _send(self, transfer: Transfer, gradients: Tensor) -> None:
        self._under_way.append((self.setup.exchange.start(self._step, transfer, gradients), gradients))

    def _send_averaged(self, site: SiteGroup) -> None:
        """Buckets whose gradients have been summed inside the site go to the other sites."""
        for handle, transfer, gradients in self._inside:
            handle.wait()
            self._send(transfer, gradients.div_(site.size))
        self._inside.clear()

    def average_gradients(self, step: int, site: SiteGroup) -> None:
        """The last bucket; those before went out during the backward pass."""
        self._send_averaged(site)

    def synchronise(self, step: int, lr: float) -> None:
        for handle, gradients in self._under_way:
            handle.wait()
            gradients.div_(self.setup.world)
        self._under_way.clear()
        update(self.setup.optimizer, self.optimizer, lr)

    def forget(self) -> None:
        super().forget()
        self._under_way.clear()
        self._inside.clear()


def _hand_over(worker: DdpWorker, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's communication hook. Its future is complete at once: `synchronise` waits, where waiting is counted.

    DDP compares the annotations of a hook with the classes themselves, so this module does not postpone annotations.
    """
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(worker.hand_over(bucket))
    return done


def _own_group() -> dist.ProcessGroup:
    if not dist.is_initialized():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    group = dist.group.WORLD
    assert group is not None
    return group


METHOD = Ddp
