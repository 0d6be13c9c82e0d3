"""A trainer's exchanges: the WAN, which carries the method's plan, the unshaped control network, and the site's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from harness.transport.wan_exchange import WanExchange
from harness.worker.job import CONTROL_PORT, LOCAL_PORT, WAN_PORT, Job
from netsim.collectives import select_algorithm, streams_per_pair, suited
from netsim.topology import Topology
from netsim.traffic import Algorithm, Transfer

# Whoever waits inside a site waits for what its leader waits for on the WAN, which is bounded there; a worker that dies
# closes its connections, and one that is stopped is noticed by the runner.
LOCAL_TIMEOUT = 86_400.0


def connect_wan(
    job: Job,
    topology: Topology,
    ready_at: Callable[[Transfer], float],
    ledger: TextIO,
    generation: int = 0,
    members: Sequence[int] | None = None,
) -> WanExchange:
    """Over wan0, among `members` (all unless given).

    Algorithm and number of streams suit the topology unless the suite names them.
    """
    network = job.spec.network
    if network.all_reduce == "auto":

        def algorithm(transfer: Transfer) -> Algorithm:
            return select_algorithm(topology, transfer)
    else:
        fixed = Algorithm(network.all_reduce)

        def algorithm(transfer: Transfer) -> Algorithm:
            return suited(transfer, fixed)

    names = [site.name for site in topology.sites]
    streams = {
        peer: network.streams or streams_per_pair(topology, names[job.rank], names[peer])
        for peer in range(job.world)
        if peer != job.rank
    }
    exchange = WanExchange.connect(
        job.rank,
        job.world,
        job.wan_addresses,
        WAN_PORT,
        f"{job.run_id}/{generation}/wan",
        streams,
        algorithm,
        network.timeout_seconds,
        members,
        ledger,
    )
    exchange.ready_at = ready_at
    return exchange


def connect_control(job: Job, generation: int = 0, members: Sequence[int] | None = None) -> WanExchange:
    """Over mgmt0: barriers and instrumentation, never the method's own traffic."""
    return WanExchange.connect(
        job.rank,
        job.world,
        job.control_addresses,
        CONTROL_PORT,
        f"{job.run_id}/{generation}/control",
        timeout=job.spec.network.timeout_seconds,
        members=members,
    )


def connect_local(job: Job) -> WanExchange:
    """Among the workers of the job's site, over the loopback of its node, which nothing shapes."""
    return WanExchange.connect(
        job.member,
        job.site_workers,
        [f"127.1.{job.rank}.{member + 1}" for member in range(job.site_workers)],
        LOCAL_PORT,
        f"{job.run_id}/0/site",
        timeout=LOCAL_TIMEOUT,
    )
