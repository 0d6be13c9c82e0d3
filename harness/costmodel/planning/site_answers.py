"""What lies behind rows: the parts of a step within a site, and what failures cost each method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.costmodel.planning.planning_questions import DAY
from harness.costmodel.projection import Projected
from harness.spec.scenario import Scenario
from netsim.simulated.link_model import LinkModel


@dataclass(frozen=True)
class StepParts:
    """Seconds of a local step at a site whose layout is stated, by cause.  mfu: what follows from all of them, of the
    FLOPs without those computed again."""

    label: str
    site: str
    computing_seconds: float
    bubble_seconds: float
    tensor_seconds: float
    stages_seconds: float
    replicas_seconds: float
    mfu: float


@dataclass(frozen=True)
class FailureCost:
    """needs_sites: those without which the others cannot go on.  checkpoint_every_minutes: of work; None without
    checkpoints.  overhead_percent: on top of the run without failures."""

    label: str
    needs_sites: int
    days_between_failures: float
    checkpoint_every_minutes: float | None
    overhead_percent: float


def step_parts(scenario: Scenario, base: Sequence[Projected]) -> Iterator[StepParts]:
    """For each method and group of sites with a layout."""
    for each in base:
        entry, sites = each.variant.entry, each.variant.sites
        shape, sequences = scenario.shape_of(entry), (entry.batch or scenario.batch) / sites
        flops = scenario.step_flops(entry, each.method, sites)
        for group in scenario.groups:
            if (parts := group.layout_times(shape, flops, sequences)) is None:
                continue
            mfu = flops / (parts.total * group.site.devices * group.device.peak_flops)
            times = (parts.computing, parts.bubble, parts.tensor, parts.stages, parts.replicas)
            yield StepParts(each.variant.label, group.name, *times, mfu)


def failure_costs(scenario: Scenario, base: Sequence[Projected], link_model: LinkModel) -> Iterator[FailureCost]:
    """For each method at its base."""
    for each in base:
        if (overhead := each.overhead) is None:
            continue
        spent, interval = each.spent_at_base(scenario, link_model), overhead.interval
        yield FailureCost(
            label=each.variant.label,
            needs_sites=sum(overhead.needed),
            days_between_failures=overhead.mtbf_of_all / DAY,
            checkpoint_every_minutes=None if interval is None else interval / 60,
            overhead_percent=100 * float(spent.failures / (spent.total - spent.failures)),
        )
