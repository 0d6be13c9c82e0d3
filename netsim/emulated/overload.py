"""Whether the delay daemons kept up with what a network carried, and whether they could with all of its rates.

The link check sends full frames, one link at a time. What else is sent meanwhile, and how small its packets are, only
the daemons know. Pure functions over what they counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netsim.emulated.traffic_counts import DaemonCounts, TrafficCounts, carried, handled

LATE_SHARE = 0.1  # of the tenths of a second with traffic
FEWEST_LATE = 5  # of them: a moment's stall of the host makes two late
FEWEST_PACKETS = 200  # that tell what one costs


def is_late(work: DaemonCounts) -> bool:
    """Whether a daemon did not keep up in what it counted between two readings."""
    return work.late_slots >= FEWEST_LATE and work.late_slots > LATE_SHARE * work.slots


def overloads(before: TrafficCounts, after: TrafficCounts) -> list[str]:
    """Each link that lost packets, and each site that was late, since its delay daemon did not keep up; in words."""
    dropped = [
        f"{link.source} -> {link.target}: the delay daemon of {link.target} did not keep up: {link.overrun} packets "
        f"were dropped ahead of it"
        for link in carried(before, after)
        if link.overrun
    ]
    return dropped + [
        f"{work.site}: its delay daemon did not keep up with {work.packets / work.slots * 10:.0f} packets a second: "
        f"more than 20 ms late in {work.late_slots} of {work.slots} tenths of a second with traffic"
        for work in handled(before, after)
        if is_late(work)
    ]


def crowding(checked: Iterable[DaemonCounts], packets_per_second: Mapping[str, float], cores: int) -> list[str]:
    """Whether the daemons could carry these packets at once, by what each cost while the links were checked; in words.

    packets_per_second: by site, what arrives there at its full rate. cores: that the host has.
    """
    cost = {work.site: work.processor_seconds / work.packets for work in checked if work.packets >= FEWEST_PACKETS}
    sites = [site for site in packets_per_second if site in cost]
    needed = sum(packets_per_second[site] * cost[site] for site in sites)
    if needed <= cores:
        return []
    total = sum(packets_per_second[site] for site in sites)
    return [
        f"with all links at their full rate {total:.0f} packets a second arrive, for which the delay daemons would "
        f"need {needed:.1f} of this host's {cores} cores"
    ]
