"""Scaled emulation: a small run that stands for a large one. docs/projection.md says what it tells.

The small model really trains, on real packets. A slot of its paced clock stands for a local step of the target, and one
of its payload bytes for 1 / `bytes` of the target's (harness.spec.padding). Then, with

    k      = the target's seconds per step / the slot's         seconds of the target for one of the run
    rate   = the target's rate x bytes x k
    delay  = the target's delay / k

every computation, transmission and delay takes 1 / k of its time in the target.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from algorithms.method import find
from algorithms.shape import ModelShape
from harness.spec.scenario import MethodEntry, Scenario
from netsim.documents import Document
from netsim.errors import InputError
from netsim.topology import Topology

_UNSCALED = ("jitter", "loss", "duplicate", "queue")  # of a link: what goes by packets, which keep their size


class StandsFor(Document):
    """As a suite has it. scenario: a file, or a name of the library; bytes: of the run, for one of the target's."""

    scenario: str
    bytes: float = Field(gt=0, le=1)


class Target(Document):
    """What a run stands for, resolved, so that its record needs no scenario. The method is the run's."""

    scenario: str
    label: str  # of the method in the scenario
    options: dict[str, Any]
    model: ModelShape
    site: str  # its machines, in words
    batch: int = Field(ge=1)  # sequences per step, all sites together
    step_seconds: float = Field(gt=0)  # of a local step
    bytes: float = Field(gt=0, le=1)  # payload bytes of the run for one of the target's

    @property
    def tokens_per_step(self) -> int:
        """Of all sites together."""
        return self.batch * self.model.sequence

    def network(self, topology: Topology, time_scale: float) -> Topology:
        """`topology` as the run emulates it. time_scale: seconds of the target for one of the run."""
        return topology.scaled(rates=self.bytes * time_scale, delays=1 / time_scale)


def entry_for(scenario: Scenario, label: str, method: str, where: str) -> MethodEntry:
    """The scenario's entry for a method of the suite: that of the same label, or the only one of the method."""
    entries = [entry for entry in scenario.methods if entry.method == method]
    found = [entry for entry in entries if entry.label == label] or entries
    if not found:
        known = ", ".join(sorted({entry.method for entry in scenario.methods}))
        raise InputError(where, "method", method, f"a method of the scenario {scenario.name}: {known}")
    if len(found) > 1:
        labels = ", ".join(entry.label or entry.method for entry in found)
        raise InputError(where, "label", label, f"one of those that the scenario {scenario.name} has: {labels}")
    return found[0]


def target_of(scenario: Scenario, entry: MethodEntry, share: float) -> Target:
    """What a run at `share` of the bytes stands for."""
    method = find(entry.method, entry.options, f"{scenario.where}: methods.{entry.label}")
    device, devices = scenario.device, scenario.site.devices
    return Target(
        scenario=scenario.name,
        label=entry.label or entry.method,
        options=entry.options,
        model=scenario.shape_of(entry),
        site=f"{devices} x {device.name} at {device.achieved_mfu:.1%} of {device.peak_flops / 1e12:g} TFLOP/s",
        batch=entry.batch or scenario.batch,
        step_seconds=scenario.seconds_per_step(entry, method, scenario.sites),
        bytes=share,
    )


def check_network(topology: Topology, scenario: Scenario, where: str) -> None:
    """Raises InputError for a network whose number of sites is another, or that cannot be scaled."""
    at = f"topologies.{topology.name}"
    if len(topology.sites) != scenario.sites:
        raise InputError(where, at, f"{len(topology.sites)} sites", f"the {scenario.sites} sites of {scenario.name}")
    if topology.timeline:
        raise InputError(where, f"{at}.timeline", "events", "none together with stands_for")
    for link in topology.links:
        if given := [name for name in _UNSCALED if getattr(link, name)]:
            found = f"{given[0]} from {link.source} to {link.target}"
            allowed = "rates and delays alone together with stands_for: packets do not scale"
            raise InputError(where, at, found, allowed)
