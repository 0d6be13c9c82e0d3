"""A run with everything that follows from its spec: method, networks, plans. Worked out once in each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from algorithms.method import Method, find
from harness.spec.faults import check_workers, declares_faults
from harness.spec.model_checks import check_unlike
from harness.spec.padding import filler_plan
from harness.spec.run_spec import RunSpec
from netsim.topology import Topology, topology_from
from netsim.traffic import Plan


@dataclass(frozen=True)
class ResolvedRun:
    """The runner makes one for each cell, a trainer one from its job; both hand it down.

    A run that stands for nothing but itself has no fillers, and one network and one plan.
    """

    spec: RunSpec
    method: Method[Any]
    named_topology: Topology  # that the suite names
    topology: Topology  # that is emulated
    own_plan: Plan  # what the method moves
    fillers: Plan  # what is moved beside it, so that the run moves what it stands for
    plan: Plan  # all of it: the ledger must equal it
    target_plan: Plan  # what the method moves in as many steps of what the run stands for

    @classmethod
    def of(cls, spec: RunSpec, where: str | None = None) -> ResolvedRun:
        """where: the spec's place, for messages.

        InputError for unknown methods and options, topologies that are none, and a `stands_for` that cannot be met.
        """
        where = where or spec.where
        method = find(spec.method, spec.options, where, spec.train.optimizer)
        named = topology_from(spec.topology, f"suite {spec.suite}, topology {spec.topology.get('name')}")
        world = len(named.sites)  # to a method and its plan, a site is one worker, however many train there
        check_workers(spec.faults, named, where)
        faulty = declares_faults(spec.faults, named)
        check_unlike(spec.compute, method, [site.name for site in named.sites], faulty, where)
        steps, stands_for = spec.train.steps, spec.stands_for
        own = method.plan(spec.model, world, steps, spec.seed)
        if stands_for is None:
            return cls(spec, method, named, named, own, Plan(world, steps, ()), own, own)
        larger = find(spec.method, stands_for.options, where, spec.train.optimizer)
        target = larger.plan(stands_for.model, world, steps, spec.seed)
        fillers = filler_plan(own, target, stands_for.bytes, where)
        emulated = stands_for.network(named, spec.time_scale)
        return cls(spec, method, named, emulated, own, fillers, own.padded(fillers), target)

    @property
    def world(self) -> int:
        """How many sites train."""
        return self.plan.sites

    @property
    def members(self) -> tuple[int, ...]:
        """How many workers each site has, by rank."""
        return tuple(site.workers for site in self.topology.sites)

    @property
    def declares_faults(self) -> bool:
        """Whether workers must be ready to go on without each other."""
        return declares_faults(self.spec.faults, self.topology)

    def memory(self, rank: int) -> dict[str, int]:
        """Bytes of training state by component, as the method counts them."""
        return self.method.memory(self.spec.model, self.world, rank, self.spec.seed)

    def heaviest_memory(self) -> dict[str, int]:
        """That of the worker that holds most."""
        return max(map(self.memory, range(self.world)), key=lambda memory: sum(memory.values()))
