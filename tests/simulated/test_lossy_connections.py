"""Connections that lose packets: by hand, against the square-root laws, and in simulated runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netsim.collectives import loss_cap
from netsim.framing import segment
from netsim.simulated.closed_form import uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.lossy_connections import LEAST_TIMEOUT, Connection, Control, LossyConnections, Path
from netsim.simulated.simulation import simulate
from netsim.topology import Link, Topology, Transport, topology_from
from netsim.traffic import Algorithm, Plan, Recurrence, Transfer

ROUND_TRIP, RATE = 0.04, 3300.0  # seconds; segments per second


def left(segments: int, loss: float, connection: Connection, seed: int = 1) -> float:
    """When the last segment of a message leaves for good, begun at zero."""
    return connection.send(segments, 0.0, Path(loss, ROUND_TRIP, RATE), np.random.default_rng(seed))


def often(times: int, segments: int, loss: float, window: float) -> np.ndarray:
    """The same, on as many new connections."""
    random, path = np.random.default_rng(1), Path(loss, ROUND_TRIP, RATE)
    return np.array([fresh(window).send(segments, 0.0, path, random) for _ in range(times)])


def paced(segments: int, window: int, slow_start: bool) -> float:
    return segments / ((2 if slow_start else 1.2) * window) * ROUND_TRIP


def fresh(window: float, control: Control = "cubic") -> Connection:
    return Connection(control, window)


def steady(window: float, control: Control = "cubic") -> Connection:
    return Connection(control, window, threshold=window)


def test_a_window_is_spread_over_its_round_trip() -> None:
    assert left(10, 0.0, fresh(10)) == pytest.approx(paced(10, 10, slow_start=True))
    assert left(10, 0.0, steady(10)) == pytest.approx(paced(10, 10, slow_start=False))


def test_a_large_window_leaves_at_the_rate_of_the_link() -> None:
    assert left(10, 0.0, fresh(200)) == pytest.approx(10 / RATE)


def test_each_further_window_costs_a_round_trip() -> None:
    assert left(25, 0.0, fresh(10, "bbr")) == pytest.approx(2 * ROUND_TRIP + paced(5, 10, slow_start=True))


def test_an_odd_window_lets_go_one_segment_less() -> None:
    """Packets have two segments, and one is not sent while there is room for one segment only."""
    assert left(30, 0.0, steady(11, "bbr")) == pytest.approx(2 * ROUND_TRIP + paced(10, 11, slow_start=False))


def test_a_window_doubles_in_each_round_trip_of_slow_start() -> None:
    connection = fresh(10)
    assert left(70, 0.0, connection) == pytest.approx(2 * ROUND_TRIP + paced(40, 40, slow_start=True))
    assert connection.window == pytest.approx(80)


def test_what_is_left_of_a_window_is_whole_segments() -> None:
    connection = steady(11)
    connection.cut()
    assert connection.window == 7


def test_a_lost_segment_with_none_behind_waits_for_a_timeout() -> None:
    """Half of all single segments are lost, and half of those that are sent again."""
    mean = np.mean(often(20_000, 1, 0.5, 10)) - 1 / RATE
    assert mean == pytest.approx(ROUND_TRIP + LEAST_TIMEOUT, rel=0.03)


def test_a_loss_that_later_segments_show_costs_no_timeout() -> None:
    """Of two segments the first is lost in a hundredth of the cases, and so is the second."""
    late = often(20_000, 2, 0.01, 10)
    assert np.mean(late > ROUND_TRIP) == pytest.approx(0.02, rel=0.15)
    assert np.mean(late > LEAST_TIMEOUT) == pytest.approx(0.01, rel=0.25)
    # The timer of the last one begins again when the first is acknowledged.
    assert np.median(late[late > LEAST_TIMEOUT]) == pytest.approx(2 * ROUND_TRIP + LEAST_TIMEOUT, abs=4 / RATE)


@pytest.mark.parametrize("control", ["reno", "cubic"])
@pytest.mark.parametrize("loss", [0.001, 0.003, 0.01])
def test_a_long_connection_has_the_rate_of_the_laws(control: Control, loss: float) -> None:
    """Mathis et al. 1997 for Reno; for cubic RFC 8312's mean, of which neither knows the timeouts."""
    segments = 40_000  # without slow start, which the laws do not know either
    seconds = np.array([left(segments, loss, steady(10, control), seed) for seed in range(20)])
    link = Link("a", "b", ROUND_TRIP / 2, loss=loss)
    law = loss_cap(link, ROUND_TRIP, Transport(congestion_control=control)) / segment(1500)
    assert segments / seconds.mean() == pytest.approx(min(law, RATE), rel=0.2)


def test_a_window_that_losses_have_cut_stays_so_in_a_pause() -> None:
    connection = fresh(40)
    connection.cut()
    assert left(28, 0.0, connection) == pytest.approx(paced(28, 28, slow_start=False))
    assert connection.window < 30


def connections(streams: int) -> LossyConnections:
    return LossyConnections(np.array([streams]), Transport())


def test_messages_are_shared_out_among_connections() -> None:
    """As they become ready, each goes where least is ahead of it."""
    several, pairs, sizes = connections(3), np.zeros(6, dtype=np.int64), np.full(6, 20_000.0)
    chosen = several.choose(pairs, sizes, 0.0, np.full(6, ROUND_TRIP))
    assert sorted(chosen.tolist()) == [0, 0, 1, 1, 2, 2]
    assert connections(1).choose(pairs, sizes, 0.0, np.full(6, ROUND_TRIP)).tolist() == [0] * 6


def lossy(loss: float, sites: int = 4, rate: float = 40e6) -> Topology:
    plain = uniform_topology(sites, rate, ROUND_TRIP)
    return replace(plain, links=tuple(replace(link, loss=loss) for link in plain.links))


def averages(steps: int, elements: int = 74_000) -> Plan:
    transfer = Transfer("average", elements, (0, 1, 2, 3), algorithm=Algorithm.DIRECT)
    return Plan(4, steps, (Recurrence((transfer,), 10, 10, steps),))


def synchronisation(loss: float, streams: int | None = None) -> float:
    outcome = simulate(averages(200), lossy(loss), Compute((0.1,) * 4), link_model=LinkModel(streams=streams))
    return (outcome.wall_seconds - 20) / 20


def test_more_loss_takes_longer_and_more_connections_less() -> None:
    none, little, much = (synchronisation(loss, 4) for loss in (0.0, 0.003, 0.01))
    assert none < little < much
    assert much < 0.8 * synchronisation(0.01, 1)


def test_a_phase_waits_for_the_latest_of_its_messages() -> None:
    """Two sites with two messages in a phase, and four with twelve of that size."""
    waited = []
    for sites in (2, 4):
        transfer = Transfer("x", 10_000 * sites, tuple(range(sites)), algorithm=Algorithm.DIRECT)
        plan = Plan(sites, 100, (Recurrence((transfer,), 1, 1, 100),))
        outcome = simulate(plan, lossy(0.02, sites, 1e9), Compute((0.1,) * sites))
        waited.append(outcome.wall_seconds - 10)
    assert waited[1] > 1.2 * waited[0]


def test_segments_with_loss_are_drawn_until_they_settle() -> None:
    outcome = simulate(averages(10_000), lossy(0.01), Compute((0.1,) * 4))
    assert outcome.simulated_rounds <= 24
    assert sum(one.times for one in outcome.rounds) == 1000
    assert sum(outcome.payload_bytes) == averages(10_000).payload_bytes


def test_equal_runs_with_loss_are_equal() -> None:
    one, other = (simulate(averages(30), lossy(0.01), Compute((0.1,) * 4)) for _ in range(2))
    assert one.wall_seconds == other.wall_seconds


def test_loss_that_begins_during_a_run_costs_from_then_on() -> None:
    document = {
        "name": "later",
        "defaults": {"up": "40 Mbit", "down": "40 Mbit", "rtt": "40 ms"},
        "sites": {site: {} for site in "abcd"},
    }
    changes = [{"at": "25 s", "set": {"between": [a, b], "loss": "3 %"}} for a in "abc" for b in "bcd" if a < b]
    plain, eventful = (
        simulate(averages(500), topology_from(one, "here"), Compute((0.1,) * 4)).wall_seconds
        for one in (document, {**document, "timeline": changes})
    )
    assert eventful > plain + 25 * 0.05
