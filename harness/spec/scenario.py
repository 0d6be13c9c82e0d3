"""Scenarios: what to project. The file format is documented in docs/projection.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from algorithms.method import Method, find, placed_errors
from algorithms.shape import ModelShape
from harness.spec.presets import Device, find_device, find_model
from netsim.documents import Document, Label, Name, located, read_yaml, validate
from netsim.errors import InputError
from netsim.library import find as find_shipped
from netsim.topology import Topology, find_topology, load_topology
from netsim.units import Delay, Duration, Rate, Share

AXES = ("rate", "rtt", "sites", "sync_every", "replication", "rank")
METHOD_AXES = ("sync_every", "replication", "rank")  # options of methods; a method without the option is not varied

MOST_STEPS, MOST_BATCH = 100_000_000, 10_000_000


class Reasoned(Document):
    """A number that is not derived, with the reason for it."""

    value: float = Field(ge=1e-3, le=1e3)
    reason: str = Field(min_length=1)


class SiteEntry(Document):
    """One site's machines: `devices` of them train in parallel, `micro_batch` sequences at a time on each."""

    device: str | dict[str, Any]
    devices: int = Field(default=1, ge=1, le=1_000_000)
    micro_batch: int = Field(default=1, ge=1, le=1_000_000)
    recompute: Literal["none", "full"] = "none"
    step_time_factor: Reasoned | None = None


class NetworkEntry(Document):
    """Equal access links of `rate`, sites `rtt` apart; or a topology file with as many sites.

    framing: whether packet headers take their part of the rate (4.4 % at an MTU of 1500), which papers leave out.
    """

    rate: Rate | None = Field(default=None, gt=0)
    rtt: Delay | None = None
    topology: str | None = None
    framing: bool = True

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.topology is None) == (self.rate is None) or (self.rate is None) != (self.rtt is None):
            raise ValueError("rate with rtt, or a topology")
        return self


class MethodEntry(Document):
    """`model`, `steps`, `batch`, `step_seconds` and the factor replace the scenario's for this method alone.

    all_reduce: how all-reduces are carried out where the method leaves it open (`harness.costmodel.exchange_variants`).
    """

    method: str
    label: Label | None = None
    options: dict[str, Any] = {}
    model: str | dict[str, Any] | ModelShape | None = None
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    batch: int | None = Field(default=None, ge=1, le=MOST_BATCH)
    step_seconds: Duration | None = Field(default=None, gt=0)
    step_time_factor: Reasoned | None = None
    all_reduce: Literal["auto", "direct", "ring", "all_to_all", "server"] = "auto"
    note: str = ""


class Sweep(Document):
    """Values per axis. Rates and RTTs are combined; every other axis is varied by itself, over all of these."""

    rate: tuple[Rate, ...] = ()
    rtt: tuple[Delay, ...] = ()
    sites: tuple[int, ...] = ()
    sync_every: tuple[int, ...] = ()
    replication: tuple[int, ...] = ()
    rank: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _positive(self) -> Self:
        whole = (*self.sites, *self.sync_every, *self.replication, *self.rank)
        if any(not 1 <= value <= MOST_STEPS for value in whole) or any(rate <= 0 for rate in self.rate):
            raise ValueError(f"rates above zero and whole numbers from 1 to {MOST_STEPS:,}")
        return self


class Prices(Document):
    """US dollars, with their source. `watts_per_device` is beside what the device itself draws (cooling, hosts)."""

    source: str
    gigabyte_sent: FiniteFloat | None = Field(default=None, ge=0)
    kilowatt_hour: FiniteFloat | None = Field(default=None, ge=0)
    device_hour: FiniteFloat | None = Field(default=None, ge=0)
    power_usage_effectiveness: FiniteFloat = Field(default=1.0, ge=1)


class Uncertainty(Document):
    """How far the inputs may be off; bands follow from it."""

    compute: Share = 0.0
    rate: Share = Field(default=0.0, lt=1)
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.compute and not self.rate:
            raise ValueError("compute, rate or both: inputs of which nothing is uncertain have no band")
        return self


class PublishedGrid(Document):
    """Rates from `low` to `high`, equally spaced on a logarithmic scale: a table's cells are the least that suffice."""

    low: Rate = Field(gt=0)
    high: Rate = Field(gt=0)
    points: int = Field(ge=2, le=10_000)


class Published(Document):
    """What a paper prints for this scenario, by the method's label, for `longhaul validate --published`.

    rate_gbit: for each of the scenario's targets the least rate of `grid` that reaches it.  sync_seconds: exposed time
    of one synchronisation.  total_hours: of the run.
    """

    source: str = Field(min_length=1)
    grid: PublishedGrid | None = None
    rate_gbit: dict[str, tuple[FiniteFloat, ...]] = {}
    sync_seconds: dict[str, FiniteFloat] = {}
    total_hours: dict[str, FiniteFloat] = {}

    @model_validator(mode="after")
    def _grid(self) -> Self:
        if self.rate_gbit and self.grid is None:
            raise ValueError("grid, whose rates the table's cells are")
        return self


class ScenarioFile(Document):
    """The document as written; the format is described in docs/projection.md."""

    name: Name
    description: str = ""
    source: str = ""
    model: str | dict[str, Any]
    sites: int = Field(ge=1, le=4096)
    site: SiteEntry
    network: NetworkEntry
    batch: int = Field(ge=1, le=MOST_BATCH)  # sequences per step, all sites together
    steps: int = Field(ge=1, le=MOST_STEPS)
    precision: Literal["mixed", "fp32"] = "mixed"
    options: dict[str, Any] = {}  # for every method that has the option and does not set it itself
    methods: tuple[str | MethodEntry, ...] = Field(min_length=1)
    sweep: Sweep = Sweep()
    targets: tuple[Share, ...] = (0.5, 0.75, 0.9, 0.95, 0.99)
    prices: Prices | None = None
    uncertainty: Uncertainty
    step_seconds: Duration | None = Field(default=None, gt=0)  # instead of what FLOPs and device give
    exchange: Literal["whole", "layerwise"] = "whole"
    final_sync: bool = True
    published: Published | None = None


@dataclass(frozen=True)
class Scenario:
    """A loaded scenario. rate in bit/s and rtt in seconds are None where a topology is named; `where` is its file."""

    name: str
    description: str
    source: str
    where: str
    model: ModelShape
    sites: int
    device: Device
    site: SiteEntry
    rate: float | None
    rtt: float | None
    topology: Topology | None
    batch: int
    steps: int
    precision: Literal["mixed", "fp32"]
    methods: tuple[MethodEntry, ...]
    sweep: Sweep
    targets: tuple[float, ...]
    prices: Prices | None
    uncertainty: Uncertainty
    framing: bool = True
    step_seconds: float | None = None
    exchange: Literal["whole", "layerwise"] = "whole"
    final_sync: bool = True
    published: Published | None = None

    def shape_of(self, entry: MethodEntry) -> ModelShape:
        """The model that a method trains: its own, or the scenario's."""
        return entry.model if isinstance(entry.model, ModelShape) else self.model

    def seconds_per_step(self, entry: MethodEntry, method: Method[Any], sites: int) -> float:
        """Seconds of a local step at a site, times the stated factor: as the scenario states it for its own number of
        sites, or FLOPs of a site's part of the batch, with what is computed again, over what its devices achieve."""
        factor = entry.step_time_factor or self.site.step_time_factor
        stretch = factor.value if factor else 1.0
        if (stated := entry.step_seconds or self.step_seconds) is not None:
            return stated * self.sites / sites * stretch
        shape = self.shape_of(entry)
        flops = method.flops_per_token(shape, sites) * (entry.batch or self.batch) / sites * shape.sequence
        flops += method.flops_per_step(shape, sites)
        flops *= 1 + self.recomputed(shape)
        return flops / (self.site.devices * self.device.flops) * stretch

    def recomputed(self, shape: ModelShape) -> float:
        """FLOPs of computing activations again in the backward pass, as a share of a step's others: with `full`, every
        layer's forward pass, a third of what the layer costs in training; the logits are kept.

        Megatron-LM measured 29 to 32 % (Korthikanti et al. 2022, arXiv 2205.05198, table 5).
        """
        if self.site.recompute == "none":
            return 0.0
        logits = 6 * shape.vocabulary * shape.width
        return (1 - logits / shape.flops_per_token()) / 3

    def backward_share(self, shape: ModelShape) -> float:
        """Of a step's computation: two thirds, and what is computed again."""
        again = self.recomputed(shape)
        return (2 / 3 + again) / (1 + again)

    @property
    def site_memory(self) -> int:
        """Accelerator memory of one site, bytes."""
        return self.site.devices * self.device.memory


def find_scenario(name: str, beside: Path | None = None) -> Path:
    """A scenario by path (relative to `beside` or here) or by its name in the library. InputError if there is none."""
    return find_shipped("scenarios", name, [beside] if beside else [])


@located()
def load_scenario(path: Path) -> Scenario:
    """The scenario in a YAML file, with everything it names looked up and every method's options checked."""
    where = str(path)
    file = validate(ScenarioFile, read_yaml(path), where)
    model, device = find_model(file.model, where), find_device(file.site.device, where)
    topology = None
    if file.network.topology is not None:
        topology = load_topology(find_topology(file.network.topology, path.parent))
        if sum(site.workers for site in topology.sites) != file.sites:
            raise InputError(where, "sites", file.sites, f"the {len(topology.sites)} sites of {topology.name}")
        if file.sweep.rate or file.sweep.rtt or file.sweep.sites:
            raise InputError(where, "sweep", "rate, rtt or sites", "none of these with a topology")
    methods = tuple(_entry(entry, file.options, index, where) for index, entry in enumerate(file.methods))
    labels = [entry.label for entry in methods]
    if topology is not None and (file.exchange != "whole" or any(entry.all_reduce == "server" for entry in methods)):
        raise InputError(where, "network", "a topology", "rate and rtt with exchange: layerwise and all_reduce: server")
    if repeated := [label for label in labels if labels.count(label) > 1]:
        raise InputError(where, "methods", repeated[0], "labels that differ: give entries of one method a label")
    scenario = Scenario(
        name=file.name,
        description=file.description,
        source=file.source,
        where=where,
        model=model,
        sites=file.sites,
        device=device,
        site=file.site,
        rate=file.network.rate,
        rtt=file.network.rtt,
        topology=topology,
        batch=file.batch,
        steps=file.steps,
        precision=file.precision,
        methods=methods,
        sweep=file.sweep,
        targets=file.targets,
        prices=file.prices,
        uncertainty=file.uncertainty,
        framing=file.network.framing,
        step_seconds=file.step_seconds,
        exchange=file.exchange,
        final_sync=file.final_sync,
        published=file.published,
    )
    for entry in methods:
        if (entry.batch or file.batch) < file.sites:
            raise InputError(where, "batch", entry.batch or file.batch, f"a sequence for each of {file.sites} sites")
        at = f"{where}: methods.{entry.label}"
        method, shape = find(entry.method, entry.options, at), scenario.shape_of(entry)
        with placed_errors(method, at):
            method.view(shape, file.sites, 0)
        check_rank(method, shape, at)
    return scenario


def check_rank(method: Method[Any], shape: ModelShape, where: str) -> None:
    """InputError for a rank above the width, of which matrices of the model have no use."""
    rank = getattr(method.options, "rank", None)
    if isinstance(rank, int) and rank > shape.width:
        raise InputError(where, "rank", rank, f"at most the width of {shape.name}, {shape.width}")


def _entry(entry: str | MethodEntry, common: dict[str, Any], index: int, where: str) -> MethodEntry:
    """With its label, and with the scenario's common options where the method has them."""
    given = MethodEntry(method=entry) if isinstance(entry, str) else entry
    kind = type(find(given.method, given.options, f"{where}: methods.{index}"))
    options = {**{name: value for name, value in common.items() if name in kind.Options.model_fields}, **given.options}
    model = find_model(given.model, where) if isinstance(given.model, str | dict) else given.model
    return given.model_copy(update={"label": given.label or given.method, "options": options, "model": model})
