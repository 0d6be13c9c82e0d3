"""Whole runs: literal logs, closed forms, faults."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.errors import LinkError
from netsim.simulated.closed_form import load_of, times, uniform_topology
from netsim.simulated.compute import Compute, Schedule, Slowdown
from netsim.simulated.link_model import LinkModel
from netsim.simulated.link_resources import Links
from netsim.simulated.memory import Beginning, KnownSegments
from netsim.simulated.segments import Segment, SegmentProgress, Setting, simulate_segment
from netsim.simulated.simulation import Evaluation, _Run, simulate
from netsim.topology import Link, Site, Topology, topology_from
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer

RATE = 8e6 * 1514 / 1448  # carries exactly 1 MB of payload a second
MB = 10**6


def all_reduce(sites: int, megabytes: float, **more: object) -> Transfer:
    return Transfer("x", int(megabytes * MB / 4), tuple(range(sites)), **more)  # type: ignore[arg-type]


def periodic(transfer: Transfer, sites: int, every: int, steps: int) -> Plan:
    return Plan(sites, steps, (Recurrence((transfer,), every, every, steps),))


def test_a_broadcast_step_by_step() -> None:
    transfer = all_reduce(3, 1, collective=Collective.BROADCAST, root=0)
    setting = Setting(
        Links(uniform_topology(3, RATE, 0.2), LinkModel()), Compute((1.0, 1.0, 2.0)), lambda t: t.algorithm
    )
    progress = simulate_segment(
        setting, Segment(2, ((1, (transfer,)),)), np.zeros(3), np.random.default_rng(0), logging=True
    )
    assert [(round(when, 4), what) for when, what in progress.log] == [
        (2.0, "0 ready for x"),
        (2.0, "1 ready for x"),
        (4.0, "0 has x"),
        (4.0, "2 ready for x"),
        (4.1, "1 has x"),
        (4.1, "2 has x"),
    ]
    assert np.round(progress.clocks, 4).tolist() == [4.0, 4.1, 4.1]


@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.RING, Algorithm.PS])
@pytest.mark.parametrize("sites", [2, 3, 8])
@pytest.mark.parametrize("rtt", [0.0, 0.02, 4.0])
@pytest.mark.parametrize("megabytes", [0.01, 8])
def test_the_simulator_equals_the_uniform_closed_form(
    algorithm: Algorithm, sites: int, rtt: float, megabytes: float
) -> None:
    """The simulator equals the closed form of a uniform network."""
    plan = periodic(all_reduce(sites, megabytes, algorithm=algorithm, root=0), sites, 5, 20)
    outcome = simulate(plan, uniform_topology(sites, RATE, rtt), Compute((1.0,) * sites))
    closed = float(times(load_of(plan), 1.0, RATE, rtt).total)
    assert outcome.wall_seconds == pytest.approx(closed, rel=2e-4)  # shares differ by a number when sites do not divide


def test_direct_hides_one_delay_behind_a_long_transmission() -> None:
    """Direct hides one of its two delays behind a long transmission."""
    plan = periodic(all_reduce(4, 8), 4, 1, 1)
    outcome = simulate(plan, uniform_topology(4, RATE, 0.2), Compute((1.0,) * 4))
    assert outcome.communication_seconds == pytest.approx([2 * 3 / 4 * 8 + 0.1] * 4, rel=1e-6)


def test_buckets_travel_while_the_backward_pass_goes_on() -> None:
    buckets = tuple(Transfer(f"g/{i}", MB // 4, (0, 1), ready=(i + 1) / 4) for i in range(4))
    plan = Plan(2, 1, (Recurrence(buckets, 1, 1, 1),))
    outcome = simulate(plan, uniform_topology(2, RATE, 0.0), Compute((6.0, 6.0)))
    # Forward 2 s; buckets of 1 s each are released at 3, 4, 5 and 6 s: only the last is exposed.
    assert outcome.wall_seconds == pytest.approx(7.0, rel=1e-6)
    assert outcome.communication_seconds == pytest.approx((1.0, 1.0), rel=1e-6)


def test_an_overlapped_transfer_is_awaited_when_it_is_due() -> None:
    """An overlapped transfer is waited for after the steps it may take."""
    plan = periodic(all_reduce(2, 3, overlap=2), 2, 10, 30)
    outcome = simulate(plan, uniform_topology(2, RATE, 0.0), Compute((1.0, 1.0)))
    # 3 s of transmission, 2 steps to hide it in; after the last step there is nothing left to hide behind.
    assert outcome.wall_seconds == pytest.approx(30 + 1 + 1 + 3, rel=1e-6)


def test_a_phase_begins_when_the_phase_before_is_done() -> None:
    reduce = all_reduce(3, 1, collective=Collective.REDUCE, root=0)
    broadcast = all_reduce(3, 1, collective=Collective.BROADCAST, root=0, phase=1)
    plan = Plan(3, 4, (Recurrence((reduce, broadcast), 4, 4, 4),))
    outcome = simulate(plan, uniform_topology(3, RATE, 0.2), Compute((1.0,) * 3))
    assert outcome.wall_seconds == pytest.approx(4 + 2 * (2 + 0.1), rel=1e-6)


def test_equal_rounds_are_simulated_once_and_booked_exactly() -> None:
    plan = periodic(all_reduce(4, 1), 4, 10, 10_000)
    outcome = simulate(plan, uniform_topology(4, RATE, 0.05), Compute((0.1,) * 4))
    assert outcome.simulated_rounds <= 2
    assert sum(r.times for r in outcome.rounds) == 1000
    assert sum(outcome.payload_bytes) == plan.payload_bytes
    once = simulate(periodic(all_reduce(4, 1), 4, 10, 10), uniform_topology(4, RATE, 0.05), Compute((0.1,) * 4))
    assert outcome.wall_seconds == pytest.approx(1000 * once.wall_seconds, rel=1e-9)


def test_jitter_costs_the_expected_maximum_over_the_workers() -> None:
    plan = periodic(all_reduce(8, 0.001), 8, 10, 1000)
    outcome = simulate(plan, uniform_topology(8, RATE, 0.0), Compute((1.0,) * 8, jitter=0.1), seed=1)
    # E[max of 8 standard normals] = 1.4236; the standard deviation of ten steps is 0.1 sqrt(10).
    lost = (outcome.wall_seconds - 1000) / 100
    assert lost == pytest.approx(1.4236 * 0.1 * 10**0.5, rel=0.1)
    assert np.mean(outcome.compute_seconds) == pytest.approx(1000, rel=0.01)


def test_rounds_with_jitter_are_drawn_once_enough_are_simulated() -> None:
    """As many rounds simulated one by one take as long, within what chance leaves."""
    plan, topology = periodic(all_reduce(8, 0.5), 8, 10, 10_000), uniform_topology(8, RATE, 0.05)
    compute = Compute((1.0,) * 8, jitter=0.1)
    drawn = simulate(plan, topology, compute, seed=3)
    assert drawn.simulated_rounds <= 20
    assert sum(r.times for r in drawn.rounds) == 1000
    assert sum(drawn.payload_bytes) == plan.payload_bytes
    short = periodic(all_reduce(8, 0.5), 8, 10, 150)
    each = [simulate(short, topology, compute, seed=s).wall_seconds / 15 for s in range(8)]  # none of them drawn
    assert drawn.wall_seconds / 1000 == pytest.approx(np.mean(each), rel=0.01)


def test_everyone_waits_for_a_straggler() -> None:
    plan = periodic(all_reduce(3, 0.001), 3, 10, 100)
    outcome = simulate(plan, uniform_topology(3, RATE, 0.0), Compute((1.0, 1.0, 1.5)))
    assert outcome.wall_seconds == pytest.approx(150, rel=1e-3)
    assert outcome.communication_seconds[0] == pytest.approx(50, rel=1e-2)


def test_a_crash_repeats_the_work_since_the_last_synchronisation() -> None:
    plan = periodic(all_reduce(2, 0.000004), 2, 10, 100)
    crash = Slowdown(rank=1, start=25.0, end=28.0, factor=float("inf"), loses_work=True)
    outcome = simulate(plan, uniform_topology(2, RATE, 0.0), Compute((1.0, 1.0)), slowdowns=[crash])
    assert outcome.wall_seconds == pytest.approx(100 + 3 + 5, abs=1e-3)


def test_a_slowdown_stretches_the_steps_it_covers() -> None:
    plan = periodic(all_reduce(2, 0.000004), 2, 10, 100)
    slow = Slowdown(rank=0, start=10.0, end=30.0, factor=2.0)
    outcome = simulate(plan, uniform_topology(2, RATE, 0.0), Compute((1.0, 1.0)), slowdowns=[slow])
    assert outcome.wall_seconds == pytest.approx(110, abs=1e-3)


def eventful(sites: int, *events: object, rtt: str = "0 ms") -> Topology:
    return topology_from(
        {
            "name": "t",
            "defaults": {"up": f"{RATE / 1e6} Mbit", "down": f"{RATE / 1e6} Mbit", "rtt": rtt},
            "sites": {name: {} for name in "abcdefgh"[:sites]},
            "timeline": list(events),
        },
        "t",
    )


def test_a_link_that_halves_in_the_middle_of_a_run() -> None:
    slower = {"at": "10.5 s", "set": {"site": "a", "up": f"{RATE / 2e6} Mbit"}}
    outcome = simulate(periodic(all_reduce(2, 1), 2, 1, 10), eventful(2, slower), Compute((1.0, 1.0)))
    # Rounds of 2 s until 10 s, then one that computes until 11, then transmissions of 2 s.
    assert outcome.wall_seconds == pytest.approx(10 + 5 * 3, abs=1e-3)


def test_a_partition_stops_a_transfer_until_its_sender_retries() -> None:
    """Without a round trip to wait for, tries are 0.2 s apart, 0.4, 0.8 and so on: the seventh arrives."""
    events = [{"at": "3.5 s", "partition": {"groups": [["a"], ["b"]]}}, {"at": "20 s", "heal": "all"}]
    outcome = simulate(periodic(all_reduce(2, 1), 2, 1, 10), eventful(2, *events), Compute((1.0, 1.0)))
    assert outcome.wall_seconds == pytest.approx(3.5 + 0.2 * (2**7 - 1) + 16.5, abs=1e-3)


def test_a_partition_that_never_heals_is_named_as_the_reason() -> None:
    event = {"at": "3.5 s", "partition": {"groups": [["a"], ["b"]]}}
    with pytest.raises(LinkError, match="cut"):
        simulate(periodic(all_reduce(2, 1), 2, 1, 10), eventful(2, event), Compute((1.0, 1.0)))


def test_cross_traffic_leaves_the_rest_of_the_link() -> None:
    event = {"from": "0 s", "to": "1000 s", "traffic": {"from": "a", "to": "b", "rate": f"{RATE / 2e6} Mbit"}}
    outcome = simulate(periodic(all_reduce(2, 1), 2, 1, 10), eventful(2, event), Compute((1.0, 1.0)))
    assert outcome.wall_seconds == pytest.approx(10 * 3, abs=1e-3)


def test_a_paused_site_is_waited_for() -> None:
    event = {"from": "5 s", "to": "8 s", "pause": {"site": "b"}}
    outcome = simulate(periodic(all_reduce(2, 1), 2, 10, 20), eventful(2, event), Compute((1.0, 1.0)))
    assert outcome.wall_seconds == pytest.approx(20 + 2 + 3, abs=1e-3)


def test_a_crashed_site_repeats_its_round_after_the_restart() -> None:
    events = [{"at": "5 s", "crash": {"site": "b"}}, {"at": "8 s", "restart": {"site": "b"}}]
    outcome = simulate(periodic(all_reduce(2, 1), 2, 10, 20), eventful(2, *events), Compute((1.0, 1.0)))
    assert outcome.wall_seconds == pytest.approx(20 + 2 + 3 + 5, abs=1e-3)


def test_a_flapping_link_is_simulated_round_by_round() -> None:
    """A link that flaps all the time is simulated round by round and ends."""
    event = {"from": "0 s", "to": "60 s", "flap": {"between": ["a", "b"], "away": "500 ms", "back": "500 ms"}}
    outcome = simulate(periodic(all_reduce(2, 1), 2, 1, 10), eventful(2, event), Compute((1.0, 1.0)))
    assert 25 < outcome.wall_seconds < 35  # every transmission of a second takes two


def test_incast_at_a_parameter_server_is_limited_by_its_downlink() -> None:
    sites = tuple(Site(f"s{i}", RATE * 10, RATE if i == 0 else RATE * 10) for i in range(4))
    links = tuple(Link(a.name, b.name, 0.0) for a in sites for b in sites if a is not b)
    plan = periodic(all_reduce(4, 1, collective=Collective.REDUCE, root=0), 4, 1, 1)
    outcome = simulate(plan, Topology("t", sites, links), Compute((1.0,) * 4))
    assert outcome.wall_seconds == pytest.approx(1 + 3, rel=1e-6)


def test_a_cold_connection_doubles_its_window_each_round_trip() -> None:
    plan = periodic(all_reduce(2, 10), 2, 1, 2)
    topology = uniform_topology(2, 100e6, 0.1)
    cold = simulate(plan, topology, Compute((1.0, 1.0)), link_model=LinkModel(cold_start=True, streams=1))
    warm = simulate(plan, topology, Compute((1.0, 1.0)))
    first, second = cold.rounds[0], cold.rounds[1]
    # 14 480 bytes in the first round trip; it takes 7 doublings to fill 1.25 MB, about 6 round trips lost.
    lost = (first.end - first.start) - warm.wall_seconds / 2
    assert 0.4 < lost < 0.8
    assert second.end - second.start == pytest.approx(warm.wall_seconds / 2, rel=1e-3)


def test_evaluations_come_at_their_steps_and_after_the_last() -> None:
    plan = periodic(all_reduce(2, 0.000004), 2, 10, 105)
    outcome = simulate(
        plan, uniform_topology(2, RATE, 0.0), Compute((1.0, 1.0)), evaluation=Evaluation(every=50, seconds=2.0)
    )
    assert outcome.evaluation_seconds == pytest.approx((6.0, 6.0), abs=1e-4)
    assert outcome.wall_seconds == pytest.approx(105 + 6, abs=1e-3)


def test_workers_of_a_site_send_as_one() -> None:
    """A site takes as long, whether one worker trains there or two average their gradients first."""
    links = (Link("a", "b", 0.0), Link("b", "a", 0.0))
    plan = periodic(all_reduce(2, 4, algorithm=Algorithm.DIRECT), 2, 1, 1)
    for workers in (1, 2):
        sites = (Site("a", RATE, RATE, workers), Site("b", RATE, RATE, workers))
        outcome = simulate(plan, Topology("t", sites, links), Compute((1.0,) * 2))
        # Either site sends half of the 4 MB, and the sum of the other half.
        assert outcome.wall_seconds == pytest.approx(1 + 4, rel=1e-3)


def test_the_seed_alone_decides_a_run() -> None:
    plan, topology = periodic(all_reduce(3, 1), 3, 5, 50), uniform_topology(3, RATE, 0.01)
    walls = [simulate(plan, topology, Compute((1.0,) * 3, jitter=0.1), seed=s).wall_seconds for s in (1, 1, 2)]
    assert walls[0] == walls[1] != walls[2]


def test_workers_that_share_a_host_share_what_it_can_move() -> None:
    plan = periodic(all_reduce(4, 4), 4, 1, 1)
    shared = LinkModel(host_bandwidth=8 * MB)
    outcome = simulate(plan, uniform_topology(4, 100 * RATE, 0.0), Compute((1.0,) * 4), link_model=shared)
    assert outcome.wall_seconds == pytest.approx(1 + plan.payload_bytes / (8 * MB), rel=1e-3)


class _Forgetful(KnownSegments):
    """Remembers no segment, so that every one is simulated."""

    def learn(self, begun: Beginning, progress: SegmentProgress) -> None:
        pass


@given(
    every=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    steps=st.integers(1, 40),
    overlap=st.integers(0, 3),
    evaluate=st.integers(1, 20),
    slow=st.floats(1.0, 3.0),
)
@settings(max_examples=30, deadline=None)
def test_advancing_in_bulk_changes_nothing(
    every: list[int], steps: int, overlap: int, evaluate: int, slow: float
) -> None:
    recurrences = tuple(
        Recurrence((Transfer(f"x{i}", 50_000 * (i + 1), (0, 1, 2), overlap=overlap if i == 0 else 0),), e, e, steps)
        for i, e in enumerate(every)
    )
    plan, topology = Plan(3, steps, recurrences), uniform_topology(3, RATE, 0.03)
    compute, evaluation = Compute((0.1, 0.1 * slow, 0.1)), Evaluation(evaluate, 0.05)
    setting = Setting(Links(topology, LinkModel()), compute, lambda t: Algorithm.DIRECT, evaluation.seconds)
    slowly = _Run(plan, setting, evaluation, Schedule(), [], 0)
    slowly.known = _Forgetful(setting.links)
    one_by_one = slowly.outcome()
    quickly = simulate(plan, topology, compute, evaluation=evaluation, choose=lambda t: Algorithm.DIRECT)
    assert quickly.simulated_rounds <= one_by_one.simulated_rounds
    assert quickly.wall_seconds == pytest.approx(one_by_one.wall_seconds, rel=1e-6)
    assert quickly.communication_seconds == pytest.approx(one_by_one.communication_seconds, rel=1e-5, abs=1e-6)
    assert sum(quickly.payload_bytes) == pytest.approx(plan.payload_bytes)
    assert min(quickly.compute_seconds) == pytest.approx(0.1 * steps)


def test_endless_overlapping_fragments_advance_in_bulk() -> None:
    """Fragments that overlap without end are advanced in bulk too."""
    fragments = tuple(Recurrence((Transfer(f"f{i}", 10_000, (0, 1), overlap=2),), 4, 1 + i, 2000) for i in range(4))
    outcome = simulate(Plan(2, 2000, fragments), uniform_topology(2, RATE, 0.01), Compute((1.0, 1.0)))
    assert outcome.simulated_rounds < 10
    assert outcome.wall_seconds == pytest.approx(2000, rel=0.01)
