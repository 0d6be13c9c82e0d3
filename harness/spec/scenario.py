"""Scenarios: what to project. The file format is documented in docs/projection.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from algorithms.method import Method, find, placed_errors
from algorithms.shape import ModelShape
from harness.spec.failures import Failures
from harness.spec.model_checks import check_rank
from harness.spec.presets import Device, find_model
from harness.spec.quality import Quality
from harness.spec.scenario_changes import changed_document
from harness.spec.scenario_sites import (
    MOST_GROUPS,
    MOST_SITES,
    EqualSites,
    EqualSitesEntry,
    Reasoned,
    SiteEntry,
    site_groups,
)
from netsim.documents import Document, Label, Name, located, read_yaml, validate
from netsim.errors import InputError
from netsim.library import find as find_shipped
from netsim.topology import Topology, find_topology, load_topology
from netsim.units import Delay, Duration, Rate, Share

AXES = ("rate", "rtt", "sites", "sync_every", "replication", "rank")
Precision = Literal["mixed", "fp32", "bf16", "fp8"]
StateDtype = Literal["fp32", "bf16", "fp16", "fp8"]
METHOD_AXES = ("sync_every", "replication", "rank")  # options of methods; a method without the option is not varied

MOST_STEPS, MOST_BATCH = 100_000_000, 10_000_000


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
    of one synchronisation.  total_hours: of the run.  measured: whether these are measurements, which have an error,
    and not what a paper's model says, which must agree.
    """

    source: str = Field(min_length=1)
    measured: bool = False
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
    sites: (
        Annotated[int, Field(ge=1, le=MOST_SITES)]
        | Annotated[tuple[EqualSitesEntry, ...], Field(min_length=1, max_length=MOST_GROUPS)]
    )
    site: SiteEntry
    network: NetworkEntry
    batch: int = Field(ge=1, le=MOST_BATCH)  # sequences per step, all sites together
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    tokens: FiniteFloat | None = Field(default=None, gt=0)  # instead of steps
    tokens_per_parameter: FiniteFloat | None = Field(default=None, gt=0)  # instead of steps; of the scenario's model
    deadline: Duration | None = Field(default=None, gt=0)
    budget: FiniteFloat | None = Field(default=None, gt=0)  # US dollars
    precision: Precision = "mixed"
    state_dtypes: dict[str, StateDtype] = {}  # by component of the memory, over what the precision says
    options: dict[str, Any] = {}  # for every method that has the option and does not set it itself
    methods: tuple[str | MethodEntry, ...] = Field(min_length=1)
    sweep: Sweep = Sweep()
    targets: tuple[Share, ...] = (0.5, 0.75, 0.9, 0.95, 0.99)
    prices: Prices | None = None
    uncertainty: Uncertainty
    step_seconds: Duration | None = Field(default=None, gt=0)  # instead of what FLOPs and device give
    step_jitter: Share = Field(default=0.0, lt=1)  # standard deviation of a step's time over its mean
    division: Literal["equal", "by_speed"] = "equal"  # of the batch among the sites
    failures: Failures | None = None
    quality: Quality | None = None
    near: tuple[Annotated[Share, Field(gt=0)], ...] = (0.01, 0.05, 0.2)  # longer than one site
    exchange: Literal["whole", "layerwise"] = "whole"
    final_sync: bool = True
    published: Published | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(value is not None for value in (self.steps, self.tokens, self.tokens_per_parameter)) != 1:
            raise ValueError("one of steps, tokens and tokens_per_parameter")
        if self.budget is not None and self.prices is None:
            raise ValueError("prices, with a budget")
        return self

    def steps_for(self, model: ModelShape) -> int:
        """Steps as stated, or as many as process the tokens."""
        if self.steps is not None:
            return self.steps
        tokens = self.tokens or (self.tokens_per_parameter or 0.0) * model.count()
        return ceil(tokens / (self.batch * model.sequence))


@dataclass(frozen=True)
class Scenario:
    """A loaded scenario. rate in bit/s and rtt in seconds are None where a topology is named; `where` is its file."""

    name: str
    description: str
    source: str
    where: str
    model: ModelShape
    groups: tuple[EqualSites, ...]  # in the order of the ranks
    rate: float | None
    rtt: float | None
    topology: Topology | None
    batch: int
    steps: int
    precision: Precision
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
    deadline: float | None = None
    budget: float | None = None
    step_jitter: float = 0.0
    division: Literal["equal", "by_speed"] = "equal"
    failures: Failures | None = None
    quality: Quality | None = None
    near: tuple[float, ...] = (0.01, 0.05, 0.2)
    tokens_per_parameter: float | None = None
    state_dtypes: Mapping[str, StateDtype] = field(default_factory=dict)

    @property
    def sites(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def alike(self) -> bool:
        """Whether all sites are equal."""
        return len(self.groups) == 1 and self.groups[0].up == self.groups[0].down == 1

    @property
    def site(self) -> SiteEntry:
        """The machines of the first site."""
        return self.groups[0].site

    @property
    def device(self) -> Device:
        """Of the first site."""
        return self.groups[0].device

    def groups_of(self, sites: int) -> tuple[EqualSites, ...]:
        """The groups where the scenario has `sites` sites instead, which it may if all are alike."""
        return (replace(self.groups[0], count=sites),) if len(self.groups) == 1 else self.groups

    def shape_of(self, entry: MethodEntry) -> ModelShape:
        """The model that a method trains: its own, or the scenario's."""
        return entry.model if isinstance(entry.model, ModelShape) else self.model

    def seconds_per_step(self, entry: MethodEntry, method: Method[Any], sites: int) -> float:
        """Seconds of a local step at the slowest site."""
        return max(self.step_times(entry, method, sites))

    def step_flops(self, entry: MethodEntry, method: Method[Any], sites: int) -> float:
        """FLOPs of a local step on a site's equal part of the batch, without what is computed again."""
        shape = self.shape_of(entry)
        flops = method.flops_per_token(shape, sites) * (entry.batch or self.batch) / sites * shape.sequence
        return flops + method.flops_per_step(shape, sites)

    def step_times(self, entry: MethodEntry, method: Method[Any], sites: int) -> tuple[float, ...]:
        """Seconds of a local step at a site of each group, times the stated factor: as the scenario states it for its
        own number of sites, or by the FLOPs of a site's equal part of the batch. Divided by speed, every site's step
        takes the harmonic mean of those."""
        shape, batch = self.shape_of(entry), entry.batch or self.batch
        flops = self.step_flops(entry, method, sites)
        stated = entry.step_seconds or self.step_seconds
        found = []
        for group in self.groups:
            factor = entry.step_time_factor or group.site.step_time_factor
            plain = group.step_seconds(shape, flops, batch / sites) if stated is None else stated * self.sites / sites
            found.append(plain * (factor.value if factor else 1.0))
        if self.division == "by_speed":
            counts = [group.count for group in self.groups_of(sites)]
            together = sum(count / seconds for count, seconds in zip(counts, found, strict=True))
            return (sum(counts) / together,) * len(found)
        return tuple(found)

    def backward_share(self, shape: ModelShape) -> float:
        """Of a step's computation: two thirds, and what is computed again at the first site."""
        again = self.groups[0].recomputed(shape)
        return (2 / 3 + again) / (1 + again)

    @property
    def site_memory(self) -> int:
        """Accelerator memory of the site that has least, bytes."""
        return min(group.memory for group in self.groups)


def find_scenario(name: str, beside: Path | None = None) -> Path:
    """A scenario by path (relative to `beside` or here) or by its name in the library. InputError if there is none."""
    return find_shipped("scenarios", name, [beside] if beside else [])


@located()
def load_scenario(path: Path, changes: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario in a YAML file, with everything it names looked up and every method's options checked.

    changes: values by key (`network.rate`) that replace those of the file.
    """
    where = str(path)
    file = validate(ScenarioFile, changed_document(read_yaml(path), changes or {}, where), where)
    model = find_model(file.model, where, path.parent)
    groups = site_groups(file.sites, file.site, file.network.rate, where)
    sites = sum(group.count for group in groups)
    if (steps := file.steps_for(model)) > MOST_STEPS:
        raise InputError(where, "tokens", f"{steps} steps", f"at most {MOST_STEPS:,} steps of the batch")
    topology = None
    if file.network.topology is not None:
        topology = load_topology(find_topology(file.network.topology, path.parent))
        if len(topology.sites) != sites:
            raise InputError(where, "sites", sites, f"the {len(topology.sites)} sites of {topology.name}")
        if file.sweep.rate or file.sweep.rtt or file.sweep.sites:
            raise InputError(where, "sweep", "rate, rtt or sites", "none of these with a topology")
    if len(groups) > 1 and file.sweep.sites:
        raise InputError(where, "sweep.sites", "numbers of sites", "none where the sites are listed one by one")
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
        groups=groups,
        rate=file.network.rate,
        rtt=file.network.rtt,
        topology=topology,
        batch=file.batch,
        steps=steps,
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
        deadline=file.deadline,
        budget=file.budget,
        step_jitter=file.step_jitter,
        division=file.division,
        failures=file.failures,
        quality=file.quality,
        near=file.near,
        tokens_per_parameter=file.tokens_per_parameter,
        state_dtypes=file.state_dtypes,
    )
    known: set[str] = set()
    for entry in methods:
        if (entry.batch or file.batch) < sites:
            raise InputError(where, "batch", entry.batch or file.batch, f"a sequence for each of {sites} sites")
        at = f"{where}: methods.{entry.label}"
        method, shape = find(entry.method, entry.options, at), scenario.shape_of(entry)
        with placed_errors(method, at):
            method.view(shape, sites, 0)
        check_rank(method, shape, at)
        known |= method.memory(shape, sites).keys() if file.state_dtypes else set()
    if unknown := sorted(file.state_dtypes.keys() - known):
        raise InputError.unknown(where, "state_dtypes", unknown[0], sorted(known))
    return scenario


def _entry(entry: str | MethodEntry, common: dict[str, Any], index: int, where: str) -> MethodEntry:
    """With its label, and with the scenario's common options where the method has them."""
    given = MethodEntry(method=entry) if isinstance(entry, str) else entry
    kind = type(find(given.method, given.options, f"{where}: methods.{index}"))
    options = {**{name: value for name, value in common.items() if name in kind.Options.model_fields}, **given.options}
    model = find_model(given.model, where) if isinstance(given.model, str | dict) else given.model
    return given.model_copy(update={"label": given.label or given.method, "options": options, "model": model})
