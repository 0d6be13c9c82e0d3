"""A site's devices as tensor, pipeline and data parallelism divide a model among them: the time of a step.

With D devices, t of them per tensor group, p stages of v chunks each and d = D / (t p) replicas that take m
micro-batches of b sequences of s tokens, w the width, and two bytes a number:

    computing   FLOPs / (D x peak x kernel_mfu)
    bubble      (p - 1) / (v m) of computing and tensor          Narayanan et al. 2021, arXiv 2104.04473, section 2.2
    tensor      m L/p x 4 all-reduces of 2 b s w bytes           section 3.2 there; 6 with full recomputation
    stages      m x 2 v x 2 b s w / t bytes, if p > 1            section 4.1 there: each device sends its part
    replicas    2 (d-1)/d of a device's weights per step, or 3 (d-1)/d per micro-batch where they are sharded
                                                                 Rajbhandari et al. 2020, arXiv 1910.02054, section 7

An all-reduce of S bytes among t passes 2 (t-1)/t S over each device's link. Tensor and stage traffic is waited for.
Replicas' traffic hides behind the last micro-batch's backward pass, or, sharded, behind all computing. A group that
fits into a node uses `device_link`, a larger one `nic`. Experts' all-to-all is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from pydantic import Field

from algorithms.shape import ModelShape
from netsim.documents import Document
from netsim.units import Rate, Share

HALF = 2  # bytes of a number


@dataclass(frozen=True)
class LayoutTimes:
    """Seconds of a local step by cause; those of links are what is not hidden."""

    computing: float
    bubble: float
    tensor: float
    stages: float
    replicas: float

    @property
    def total(self) -> float:
        return self.computing + self.bubble + self.tensor + self.stages + self.replicas


class DeviceLayout(Document):
    """tensor, pipeline: devices per group, stages; the rest are data-parallel replicas.  interleave: chunks per stage.
    sharding: what the replicas of a site divide: nothing, the optimizer's state, or all state.  kernel_mfu: share of
    the peak that a device reaches without any of this.  node: devices that `device_link` joins; both rates are one way
    and per device.
    """

    tensor: int = Field(default=1, ge=1, le=4096)
    pipeline: int = Field(default=1, ge=1, le=4096)
    interleave: int = Field(default=1, ge=1, le=1024)
    sharding: Literal["none", "optimizer", "full"] = "full"
    kernel_mfu: Share = Field(gt=0)
    node: int = Field(default=8, ge=1, le=100_000)
    device_link: Rate = Field(gt=0)
    nic: Rate = Field(gt=0)
    source: str = Field(min_length=1)

    @property
    def model_parallel(self) -> int:
        """Devices that hold one replica together."""
        return self.tensor * self.pipeline

    def micro_batches(self, devices: int, micro_batch: int, sequences: float) -> int:
        """Of a replica in a step, at least one."""
        return max(1, ceil(sequences * self.model_parallel / devices / micro_batch - 1e-9))

    def times(
        self, shape: ModelShape, devices: int, micro_batch: int, sequences: float, computing: float, again: bool
    ) -> LayoutTimes:
        """The step's time at a site of `devices`, of whose computation `computing` seconds are known. again: whether
        every layer's forward pass is computed twice."""
        replicas, p = devices // self.model_parallel, self.pipeline
        m = self.micro_batches(devices, micro_batch, sequences)
        passed = HALF * min(micro_batch, sequences / replicas) * shape.sequence * shape.width
        reduces = 6 if again else 4
        tensor = m * shape.layers / p * reduces * self._all_reduce(passed, self.tensor, self.tensor)
        idle = (p - 1) / (self.interleave * m)
        stages = m * 2 * self.interleave * passed / self.tensor / self._link(self.model_parallel) if p > 1 else 0.0
        weights = HALF * shape.count() / self.model_parallel
        once = self._all_reduce(weights, replicas, devices)
        if self.sharding == "full":
            hidden, moved = computing, 1.5 * m * once
        else:
            hidden, moved = computing * 2 / 3 / m, once
        return LayoutTimes(computing, (computing + tensor) * idle, tensor, stages, max(0.0, moved - hidden))

    def _all_reduce(self, size: float, members: int, span: int) -> float:
        """Seconds among `members` of a group of `span` devices."""
        return 2 * (members - 1) / members * size / self._link(span)

    def _link(self, span: int) -> float:
        """Bytes a second of each device's link in a group of so many devices."""
        return (self.device_link if span <= self.node else self.nic) / 8
