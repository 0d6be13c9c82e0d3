"""Declared faults: what happens to which site at which step, the same for every method that is compared.

A fault follows from (seed, site, step) alone. What happens at a second instead of a step, and what happens to links, is
in the topology's timeline (docs/topologies.md); both end up in events.jsonl.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_serializer, model_validator

from netsim.documents import Document
from netsim.errors import InputError
from netsim.topology import Topology
from netsim.units import Moment, Share

_NEEDS = {"crash": (), "pause": ("lasts",), "straggle": ("factor",), "corrupt": (), "short": ()}
_MAY = {"crash": ("back_after",)}


class Fault(Document):
    """`crash`: the trainer is killed at the start of the step, and started again `back_after` later if that is given.
    `pause`: it stands still for `lasts`. `straggle`: the step takes `factor` times as long. `corrupt`: it sends a
    damaged payload. `short`: it sends less than it announced.
    """

    kind: Literal["crash", "pause", "straggle", "corrupt", "short"]
    site: str | None = None  # default: every site, each drawn for itself
    step: int = Field(default=1, ge=1, le=10**9)  # the first local step at which it may happen
    until: int | None = Field(default=None, ge=1, le=10**9)  # the last one; default: only at `step`
    probability: Share = 1.0  # at each of these steps
    back_after: Moment | None = None
    lasts: Moment | None = Field(default=None, gt=0)
    factor: float | None = Field(default=None, gt=1, le=1000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {name for name in ("back_after", "lasts", "factor") if getattr(self, name) is not None}
        needs, may = set(_NEEDS[self.kind]), set(_MAY.get(self.kind, ()))
        if not needs <= given <= needs | may:
            allowed = ", ".join(sorted(needs | may)) or "none of back_after, lasts, factor"
            raise ValueError(f"for a {self.kind}: {allowed}")
        if self.until is not None and self.until < self.step:
            raise ValueError("until not before step")
        return self

    @field_serializer("back_after", "lasts")
    def _with_unit(self, seconds: float | None) -> str | None:
        return None if seconds is None else f"{seconds} s"  # a record is read like a suite

    def happens(self, index: int, seed: int, site: str, step: int) -> bool:
        """Whether it happens to `site` at local step `step`; `index` is its place in the suite."""
        if self.site not in (None, site) or not self.step <= step <= (self.until or self.step):
            return False
        if self.probability == 1:
            return True
        digest = hashlib.blake2b(f"{seed} {index} {site} {step}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.probability * 2**64


def check_faults(faults: Sequence[Fault], sites: Sequence[str], steps: int, where: str) -> None:
    """Raises InputError for a fault that cannot happen here."""
    for index, fault in enumerate(faults):
        if fault.site is not None and fault.site not in sites:
            raise InputError.unknown(where, f"faults.{index}.site", fault.site, sites)
        if fault.step > steps:
            raise InputError(where, f"faults.{index}.step", fault.step, f"at most the {steps} steps of the run")


def check_workers(faults: Sequence[Fault], topology: Topology, where: str) -> None:
    """Raises InputError where faults are declared and a site has several workers: one alone cannot go on there."""
    if declares_faults(faults, topology) and (several := [site for site in topology.sites if site.workers > 1]):
        place = f"topology {topology.name}, sites.{several[0].name}.workers"
        allowed = "1 in a run with declared faults or a timeline that crashes, pauses or parts sites"
        raise InputError(where, place, several[0].workers, allowed)


def declares_faults(faults: Sequence[Fault], topology: Topology) -> bool:
    """Whether faults are declared, so that workers must be ready to continue without each other."""
    cuts = any(event.partition or event.flap for event in topology.timeline.events)
    return bool(faults or topology.timeline.site_events() or cuts)


def undisturbed_site(topology: Topology) -> str:
    """A site whose programs nothing kills or stops, for the store. Raises InputError if there is none."""
    # A fault at a step hits the trainer alone, an event of the timeline every program of its site.
    affected = {event.site for event in topology.timeline.site_events()}
    for site in topology.sites:
        if site.name not in affected:
            return site.name
    raise InputError(
        topology.name, "timeline", "crashes or pauses of every site", "one site spared: it holds the store"
    )
