"""A topology's timeline for the simulator: the same events that the emulator plays.

Links take the states that the timeline gives; a severed link carries nothing, nor does one that was until senders try
again (`outages`). Cross-traffic does not yield: it takes its rate away from the transfers of its pair. Both together
have one pair's share of the links that they cross, as in the emulator, whose uplinks are shared by destination. A
paused site stands still; a crashed one stands still until it restarts and computes again what it had since the last
synchronisation.
"""

from __future__ import annotations

from functools import partial
from math import inf

from netsim.errors import LinkError
from netsim.simulated.compute import Slowdown
from netsim.simulated.fabric import Fabric
from netsim.simulated.link_resources import site_of_rank
from netsim.simulated.outages import restore, sever
from netsim.simulated.segments import Change
from netsim.states import state_at, states
from netsim.timeline import CrossTraffic
from netsim.topology import Topology


def changes_of(topology: Topology) -> list[Change]:
    """When the links change, and how; ascending. What holds from the start is not among them."""
    timeline = topology.timeline
    held = states(topology)
    traffic = timeline.cross_traffic()
    times = {time for time, _ in held} | {t for stretch in traffic for t in (stretch.start, stretch.end)}
    found: list[Change] = []
    for time in sorted(times - {0.0}):
        state = [topology for begin, topology in held if begin <= time][-1]
        found.append((time, partial(_apply, state, _running(traffic, time))))
    return found


def start_of(topology: Topology) -> tuple[Topology, list[CrossTraffic]]:
    """What holds at time zero."""
    timeline = topology.timeline
    return state_at(topology, 0.0), _running(timeline.cross_traffic(), 0.0)


def slowdowns_of(topology: Topology) -> list[Slowdown]:
    """Pauses and crashes of the sites' workers. A crash without a restart is a LinkError: nobody could go on."""
    ranks: dict[str, list[int]] = {}
    for rank, site in enumerate(site_of_rank(topology)):
        ranks.setdefault(site, []).append(rank)
    down: dict[str, tuple[float, str]] = {}
    found: list[Slowdown] = []
    for incident in topology.timeline.site_events():
        if incident.kind in ("pause", "crash"):
            down[incident.site] = incident.at, incident.kind
        elif incident.site in down:
            start, kind = down.pop(incident.site)
            found += [Slowdown(rank, start, incident.at, inf, kind == "crash") for rank in ranks[incident.site]]
    if down:
        site, (at, kind) = next(iter(down.items()))
        raise LinkError(f"site {site} stops at {at:g} s ({kind}) and never comes back: the simulated run cannot end")
    return found


def _running(traffic: list[CrossTraffic], time: float) -> list[CrossTraffic]:
    return [stretch for stretch in traffic if stretch.start <= time < stretch.end]


def _apply(state: Topology, traffic: list[CrossTraffic], fabric: Fabric) -> None:
    links = fabric.links
    before = links.severed.copy()
    links.become(state, [(stretch.source, stretch.target, stretch.rate) for stretch in traffic])
    sever(before, fabric)
    restore(before, fabric)
    links.refresh()
    fabric.flows.change()
