"""Links that are cut for a while: senders find out late that they are whole again."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.framing import goodput
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.outages import next_retry
from netsim.simulated.simulation import simulate
from netsim.topology import topology_from
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

RATE, ROUND_TRIP, ELEMENTS = 10e6, 0.05, 500_000


@pytest.mark.parametrize(
    ("whole", "tries"),
    [(0.05, 0.1), (0.2, 0.35), (0.36, 0.85), (1.0, 1.85), (1.9, 3.85), (3.8, 3.85)],
)
def test_a_sender_tries_again_at_growing_intervals(whole: float, tries: float) -> None:
    """After two round trips, then after a timeout of a quarter of a second, and after twice the wait each time."""
    assert next_retry(10.0, 10.0 + whole, ROUND_TRIP) == pytest.approx(10.0 + tries)


def wall_seconds(*timeline: dict[str, Any], link_model: LinkModel | None = None) -> float:
    document = {
        "name": "cut",
        "defaults": {"up": "10 Mbit", "down": "10 Mbit", "rtt": "50 ms"},
        "sites": {site: {} for site in "ab"},
        "timeline": timeline,
    }
    transfer = Transfer("average", ELEMENTS, (0, 1), algorithm=Algorithm.DIRECT)
    plan = Plan(2, 1, (Recurrence((transfer,), 1, 1, 1),))
    topology = topology_from(document, "here")
    return simulate(plan, topology, Compute((0.1, 0.1)), link_model=link_model or LinkModel()).wall_seconds


def cut(start: float, end: float) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"at": f"{start} s", "partition": {"groups": [["a"], ["b"]]}}, {"at": f"{end} s", "heal": "all"}


def test_a_transfer_that_is_cut_goes_on_at_the_next_try() -> None:
    """Cut at 0.5 s, the last acknowledgement is there half a round trip later; the next try is 1.85 s after that."""
    assert 4 * ELEMENTS * 8 / goodput(RATE, 1500) > 1
    assert wall_seconds(*cut(0.5, 1.5)) == pytest.approx(wall_seconds() + ROUND_TRIP / 2 + 1.85, abs=0.01)


def test_a_transfer_that_begins_on_a_cut_link_counts_from_then() -> None:
    """Ready at 0.1 s, whole again at 0.3: the third try, 0.35 s after the first, is the first to arrive."""
    assert wall_seconds(*cut(0.0, 0.3)) == pytest.approx(wall_seconds() + 0.35, abs=0.01)


def test_a_cut_while_nothing_is_sent_costs_nothing() -> None:
    assert wall_seconds(*cut(0.02, 0.08)) == pytest.approx(wall_seconds())


def test_a_window_begins_again_after_a_cut() -> None:
    cold = LinkModel(cold_start=True)
    later = wall_seconds(*cut(0.5, 1.5), link_model=cold) - wall_seconds(link_model=cold)
    assert ROUND_TRIP / 2 + 1.85 + 2 * ROUND_TRIP < later < ROUND_TRIP / 2 + 1.85 + 8 * ROUND_TRIP
