"""The projection that a scaled run is held against: as many steps of what it stands for, by the cost model.

First principles, connections warm, as `longhaul project` has it without a calibration: the closed form on equal access
links and equal delays, where it is exact; any other network through SimPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from harness.costmodel.projection_rows import SIMULATED_TRANSFERS
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from netsim.simulated.closed_form import load_of, times
from netsim.simulated.compute import Compute
from netsim.simulated.simulation import simulate
from netsim.topology import Topology


@dataclass(frozen=True)
class TargetTime:
    """Seconds of the target."""

    compute_seconds: float
    communication_seconds: float  # exposed
    evaluator: str

    @property
    def seconds(self) -> float:
        return self.compute_seconds + self.communication_seconds


def project_target(spec: RunSpec, steps: int | None = None) -> TargetTime:
    """Of a spec that stands for something; `steps` of it, by default all."""
    assert spec.stands_for is not None
    run = ResolvedRun.of(spec)
    topology = run.named_topology
    step_seconds, share = spec.stands_for.step_seconds, spec.compute.backward_share
    plan = run.target_plan.truncated(steps or spec.train.steps)
    if (link := _equal_links(topology)) is not None:
        found = times(load_of(plan), step_seconds, *link, backward_share=share, mtu=topology.transport.mtu)
        return TargetTime(float(found.compute), float(found.communication), "closed form")
    compute = Compute((step_seconds,) * len(topology.sites), share)
    outcome = simulate(plan.merged(SIMULATED_TRANSFERS), topology, compute)
    computing = fmean(outcome.compute_seconds)
    return TargetTime(computing, outcome.wall_seconds - computing, "simulated")


def _equal_links(topology: Topology) -> tuple[float, float] | None:
    """(bit/s, RTT in seconds) where all access links and all delays are equal."""
    rates = {rate for site in topology.sites for rate in (site.up, site.down)}
    delays = {link.delay for link in topology.links}
    if len(rates) != 1 or len(delays) != 1 or any(link.rate is not None for link in topology.links):
        return None
    return rates.pop(), 2 * delays.pop()
