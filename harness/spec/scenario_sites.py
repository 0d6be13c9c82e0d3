"""The sites of a scenario: the machines of each, and sites that differ from the others, as a file states them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from algorithms.shape import ModelShape
from harness.spec.presets import Device, find_device
from harness.spec.site_layout import DeviceLayout, LayoutTimes
from netsim.documents import Document, Label
from netsim.errors import InputError
from netsim.units import Rate

MOST_SITES, MOST_GROUPS = 4096, 64

# What a field of a site may be, for all sites in SiteEntry and for some in EqualSitesEntry.
Machine = str | dict[str, Any]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Attention = Literal["fused", "plain"]
Recompute = Literal["none", "selective", "full"]
Offload = Literal["none", "optimizer", "outer", "both"]


class Reasoned(Document):
    """A number that is not derived, with the reason for it."""

    value: float = Field(ge=1e-3, le=1e3)
    reason: str = Field(min_length=1)


class SiteEntry(Document):
    """One site's machines: `devices` of them train in parallel, `micro_batch` sequences at a time on each.

    attention: `plain` keeps every head's scores for the backward pass, which fused kernels compute again.  recompute:
    `selective` computes the scores of plain attention again (Korthikanti et al. 2022), `full` every layer.  parallel:
    how the devices divide the model, instead of an achieved MFU.  offload: state that lies in host memory and crosses
    `host_link` of each device: the optimizer's moments at every step, what only synchronisations touch, or both.
    workers: of the site that exchange: they average over `inside` first, and each sends its part through its
    `worker_nic`.
    """

    device: Machine
    devices: Count = 1
    micro_batch: Count = 1
    attention: Attention = "fused"
    recompute: Recompute = "none"
    step_time_factor: Reasoned | None = None
    parallel: DeviceLayout | None = None
    offload: Offload = "none"
    host_link: Rate | None = Field(default=None, gt=0)
    workers: Count = 1
    worker_nic: Rate | None = Field(default=None, gt=0)
    inside: Rate | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if missing := self.missing:
            raise ValueError(missing)
        return self

    @property
    def missing(self) -> str:
        """What its values need beside each other; empty if nothing is missing."""
        if self.offload != "none" and self.host_link is None:
            return "host_link, the rate between a device and its host, with offload"
        if self.workers > 1 and self.inside is None:
            return "inside, the rate at which each worker reaches the others of its site, with workers"
        if self.parallel is not None and self.devices % self.parallel.model_parallel:
            return "devices that are a multiple of parallel.tensor x parallel.pipeline"
        return ""


class EqualSitesEntry(Document):
    """So many equal sites; what is not given is as in `site` and `network`."""

    count: int = Field(default=1, ge=1, le=MOST_SITES)
    name: Label | None = None
    up: Rate | None = Field(default=None, gt=0)
    down: Rate | None = Field(default=None, gt=0)
    device: Machine | None = None
    devices: Count | None = None
    micro_batch: Count | None = None
    attention: Attention | None = None
    recompute: Recompute | None = None
    step_time_factor: Reasoned | None = None
    parallel: DeviceLayout | None = None
    offload: Offload | None = None
    host_link: Rate | None = Field(default=None, gt=0)
    workers: Count | None = None
    worker_nic: Rate | None = Field(default=None, gt=0)
    inside: Rate | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class EqualSites:
    """`count` equal sites. up, down: of their access links as multiples of the network's rate."""

    name: str
    count: int
    site: SiteEntry
    device: Device
    up: float = 1.0
    down: float = 1.0

    @property
    def memory(self) -> int:
        """Accelerator memory of one of the sites, bytes."""
        return self.site.devices * self.device.memory

    @property
    def widest(self) -> float:
        """The network's rate, bit/s, above which the workers' own NICs are narrower than the access link."""
        if self.site.worker_nic is None:
            return inf
        return self.site.workers * self.site.worker_nic / min(self.up, self.down)

    @property
    def inside_byte_seconds(self) -> float:
        """Seconds for each byte of a synchronised tensor that the site's workers average before, and spread after, the
        exchange between sites: a reduce-scatter and an all-gather, 2 (w - 1) / w bytes through each worker's link."""
        workers = self.site.workers
        return 2 * (workers - 1) / workers * 8 / self.site.inside if self.site.inside is not None else 0.0

    def recomputed(self, shape: ModelShape) -> float:
        """FLOPs of computing activations again in the backward pass, as a share of a step's others: with `full`, every
        layer's forward pass, a third of what the layer costs in training; the logits are kept. With `selective`, the
        scores of plain attention; fused kernels compute them again anyhow, within their achieved FLOP/s.

        Megatron-LM measured 29 to 32 % (Korthikanti et al. 2022, arXiv 2205.05198, table 5).
        """
        if self.site.recompute == "none":
            return 0.0
        if self.site.recompute == "selective":
            scores = shape.layers * shape.score_flops_per_token if self.site.attention == "plain" else 0.0
            return scores / shape.flops_per_token() / 3
        logits = 6 * shape.vocabulary * shape.width
        return (1 - logits / shape.flops_per_token()) / 3

    def step_seconds(self, shape: ModelShape, flops: float, sequences: float) -> float:
        """Seconds of a local step of `flops` on `sequences` sequences, with what is computed again: over what the
        devices achieve, or by the site's layout."""
        if (times := self.layout_times(shape, flops, sequences)) is not None:
            return times.total
        return flops * (1 + self.recomputed(shape)) / (self.site.devices * self.device.flops)

    def layout_times(self, shape: ModelShape, flops: float, sequences: float) -> LayoutTimes | None:
        """The parts of such a step; None for a site whose layout is not stated."""
        layout, devices = self.site.parallel, self.site.devices
        if layout is None:
            return None
        computing = flops * (1 + self.recomputed(shape)) / (devices * self.device.peak_flops * layout.kernel_mfu)
        again = self.site.recompute == "full"
        return layout.times(shape, devices, self.site.micro_batch, sequences, computing, again)


def site_groups(
    sites: int | tuple[EqualSitesEntry, ...], base: SiteEntry, rate: float | None, where: str
) -> tuple[EqualSites, ...]:
    """The groups of a scenario's sites; all alike are one group. InputError for rates where a topology has them."""
    if isinstance(sites, int):
        return (EqualSites("sites", sites, base, find_device(base.device, where)),)
    found = []
    for index, entry in enumerate(sites):
        if rate is None and (entry.up or entry.down):
            raise InputError(where, f"sites.{index}", "up or down", "none of these with a topology, which has its own")
        own = {name: getattr(entry, name) for name in SiteEntry.model_fields if getattr(entry, name) is not None}
        site = base.model_copy(update=own)
        if missing := site.missing:
            raise InputError(where, f"sites.{index}", "values that do not go together", missing)
        up, down = (1.0 if value is None or rate is None else value / rate for value in (entry.up, entry.down))
        device = find_device(site.device, where)
        found.append(EqualSites(entry.name or f"{device.name} {index + 1}", entry.count, site, device, up, down))
    if (total := sum(group.count for group in found)) > MOST_SITES:
        raise InputError(where, "sites", total, f"at most {MOST_SITES} in all")
    return tuple(found)
