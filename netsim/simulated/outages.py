"""What an outage costs beyond its own length: TCP tries again at growing intervals, and then begins with one segment.

The first retry is a probe two round trips after the last acknowledgement, or after what was sent first (RFC 8985,
section 7.2), the next a timeout later, and each one after twice the wait before it (RFC 6298, section 5.5). So a link
may have been whole for as long as it had been cut before a sender finds out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from netsim.simulated.fabric import Fabric
from netsim.simulated.fair_rates import Flags, Ints
from netsim.simulated.lossy_connections import LEAST_TIMEOUT

_LONGEST = 120.0  # seconds between two retries; Linux's TCP_RTO_MAX


def next_retry(since: float, whole: float, round_trip: float) -> float:
    """When a sender that hears nothing since `since` first sends again on a link that is whole from `whole` on."""
    wait = round_trip + LEAST_TIMEOUT
    due = since + min(2 * round_trip, wait)
    while due < whole:
        due += wait
        wait = min(2 * wait, _LONGEST)
    return due


def sever(before: Flags, fabric: Fabric) -> None:
    """Flows on pairs that were whole `before` hear nothing from when the last acknowledgement has arrived."""
    cut = np.flatnonzero(fabric.links.severed & ~before)
    fabric.flows.silence(cut, fabric.links.delay.T.ravel()[cut])


def restore(before: Flags, fabric: Fabric) -> None:
    """Flows on pairs that were severed `before` and are whole now stand still until their senders try again."""
    links, now = fabric.links, fabric.env.now
    routes, since = fabric.flows.silent(np.flatnonzero(before & ~links.severed))
    due: dict[float, list[int]] = {}
    for route, began in zip(routes.tolist(), since.tolist(), strict=True):
        at = next_retry(began, now, float(links.rtt.ravel()[route]))
        due.setdefault(at, []).append(route)
    for at, waiting in due.items():
        fabric.env.process(_try_again(at, np.array(waiting), fabric))


def _try_again(at: float, routes: Ints, fabric: Fabric) -> Generator[simpy.Event, Any, None]:
    """The pairs carry nothing until then, unless the timeline changes them before."""
    links, flows = fabric.links, fabric.flows
    pairs = links.pair.ravel()[routes]
    capacity = links.capacity[pairs].copy()
    links.capacity[pairs] = 0.0
    links.refresh()
    flows.change()
    yield fabric.env.timeout(at - fabric.env.now)
    still = (links.capacity[pairs] == 0) & ~links.severed.ravel()[routes]
    links.capacity[pairs[still]] = capacity[still]
    if links.link_model.cold_start:
        links.windows.begin_again(routes, (links.streams.ravel()[routes] * links.segment).astype(float))
        fabric.watch(routes)
    links.refresh()
    flows.change()
