"""What lost packets cost a collective: the time until the last retransmission has arrived.

A packet that is lost arrives a round trip later: those behind it are acknowledged selectively, and after three of them
nothing more is waited for (RFC 8985, section 6.2). The last packet of a connection's queue has none behind it. When
those before it are acknowledged, a round trip after they were sent, it is the only one outstanding, and Linux waits
another round trip and 0.2 s: for the probe (section 7.2; net/ipv4/tcp_output.c, `tcp_schedule_loss_probe`, adds the
least timeout to 2 SRTT) or, if earlier, for the timeout, SRTT and at least 0.2 s. So it does where a retransmission is
lost.

Messages that leave together, one phase of a collective, are waited for together, so what counts is not the mean delay
of a message but the expectation of the largest of all. A loss that lies u seconds before the end of its message delays
that end by s - u, s being the round trip: what was lost earlier has arrived again by then. With losses that come as a
Poisson process of m per second over the T seconds of a phase, the largest delay exceeds s - u with probability
1 - exp(-m min(u, T)), whose integral over u from 0 to s is the expectation.

The mean rate that congestion control reaches under loss is bounded elsewhere (`netsim.collectives.loss_cap`).
"""

from __future__ import annotations

from math import exp

import numpy as np

from netsim.simulated.fair_rates import Floats, Ints

LEAST_TIMEOUT = 0.2  # seconds; Linux's TCP_RTO_MIN


def expected_stall(losses: float, seconds: float, round_trip: float, unnoticed: float = 0.0) -> float:
    """Expectation of the largest delay, seconds.

    losses: expected in a phase.  seconds: that it takes to send.  unnoticed: expected losses that only a probe or a
    timeout repairs.
    """
    if losses <= 0 or round_trip <= 0:
        return 0.0
    overlap = min(round_trip, seconds)
    rising = overlap - (1 - exp(-losses * overlap / seconds)) * seconds / losses if seconds > 0 else 0.0
    late = (round_trip + LEAST_TIMEOUT) * (1 - exp(-unnoticed))
    return rising + (round_trip - overlap) * (1 - exp(-losses)) + late


def stall_of_phases(
    phase: Ints, packets: Floats, last: Floats, loss: Floats, round_trip: Floats, seconds: Floats
) -> Floats:
    """(messages,) expected seconds by which the messages of a phase arrive later for what any of them has lost.

    phase, packets, loss, round_trip: of each message and its pair.  last: probability that a message is the last in its
    connection's queue.  seconds: (phases,).  Where round trips differ, their mean over the packets that are lost is
    taken.
    """
    found = np.zeros(len(seconds))
    for index, duration in enumerate(seconds.tolist()):
        mine = phase == index
        lost = (packets * loss)[mine]
        if (total := float(lost.sum())) > 0:
            mean_round_trip = float((lost * round_trip[mine]).sum()) / total
            unnoticed = float((lost * loss[mine]).sum() + (last * loss)[mine].sum())
            found[index] = expected_stall(total, duration, mean_round_trip, unnoticed)
    stalls: Floats = found[phase]
    return stalls
