"""What lost packets cost a collective: by hand, by drawing losses, and in a simulated run."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import numpy as np
import pytest

from netsim.framing import goodput, segment
from netsim.simulated.closed_form import uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.loss_stalls import expected_stall
from netsim.simulated.messages import messages_of
from netsim.simulated.simulation import simulate
from netsim.topology import Topology
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer

ROUND_TRIP = 0.04


@pytest.mark.parametrize(("losses", "seconds"), [(0.1, 0.2), (1.1, 0.087), (3.0, 0.02), (40.0, 1.0)])
def test_a_phase_waits_for_its_latest_retransmission(losses: float, seconds: float) -> None:
    """Drawn: every packet that is lost arrives a round trip after it was sent; the phase ends with the last arrival."""
    random = np.random.default_rng(1)
    late = [
        max(0.0, ROUND_TRIP - float(random.uniform(0, seconds, count).min())) if count else 0.0
        for count in random.poisson(losses, 40_000).tolist()
    ]
    assert expected_stall(losses, seconds, ROUND_TRIP) == pytest.approx(float(np.mean(late)), rel=0.03)


def test_one_packet_that_is_lost_costs_a_round_trip() -> None:
    assert expected_stall(0.01, 0.0, ROUND_TRIP) == pytest.approx(ROUND_TRIP * (1 - exp(-0.01)))
    assert expected_stall(0.0, 1.0, ROUND_TRIP) == 0


def test_what_nothing_follows_waits_for_the_timeout() -> None:
    """A round trip until it is alone, another and Linux's 0.2 s until it is sent again."""
    certain = 1e9
    assert expected_stall(certain, 0.0, ROUND_TRIP, certain) == pytest.approx(2 * ROUND_TRIP + 0.2)


def test_messages_leave_in_as_many_phases_as_hops() -> None:
    direct = messages_of(Collective.ALL_REDUCE, Algorithm.DIRECT, (100,) * 4, None, 3)
    ring = messages_of(Collective.ALL_REDUCE, Algorithm.RING, (100,) * 4, None, 3)
    for messages, hops in ((direct, 2), (ring, 6)):
        crossing = messages.phase[messages.size > 0]
        assert np.bincount(crossing).tolist() == [len(crossing) // hops] * hops


def lossy(loss: float) -> Topology:
    plain = uniform_topology(4, 40e6, ROUND_TRIP)
    return replace(plain, links=tuple(replace(link, loss=loss) for link in plain.links))


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.05])
def test_a_synchronisation_pays_for_two_phases_of_losses(loss: float) -> None:
    """Four sites: in each phase twelve messages of 34 kB, each alone on its connection; three cross each uplink."""
    transfer = Transfer("average", 34_000, (0, 1, 2, 3), algorithm=Algorithm.DIRECT)
    plan = Plan(4, 100, (Recurrence((transfer,), 10, 10, 100),))
    without, with_loss = (
        simulate(plan, topology, Compute((0.1,) * 4), link_model=LinkModel(streams=16)).wall_seconds
        for topology in (lossy(0.0), lossy(loss))
    )
    packets, seconds = 12 * 34_000 / segment(1500), 3 * 34_000 * 8 / goodput(40e6, 1500)
    stall = expected_stall(packets * loss, seconds, ROUND_TRIP, packets * loss**2 + 12 * loss)
    assert with_loss - without == pytest.approx(10 * 2 * stall, rel=1e-3)
