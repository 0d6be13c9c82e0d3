"""Timelines: what holds when, what happens to sites, and which events are refused."""

import pytest

from netsim.errors import InputError
from netsim.states import state_at
from netsim.states import states as states_of
from netsim.timeline import CrossTraffic, WorkerEvent
from netsim.topology import Topology, subset_document, topology_from

BASE = {
    "name": "trio",
    "defaults": {"up": "100 Mbit", "down": "100 Mbit", "delay": "10 ms"},
    "sites": {"a": {}, "b": {}, "c": {}},
}


def timed(*events: dict[str, object]) -> Topology:
    return topology_from({**BASE, "timeline": list(events)}, "here")


def history(topology: Topology, what: str, source: str = "a", target: str = "b") -> list[tuple[float, object]]:
    states = states_of(topology)
    found = [(round(time, 6), getattr(state.link(source, target), what)) for time, state in states]
    return [one for place, one in enumerate(found) if place == 0 or one[1] != found[place - 1][1]]


def test_without_events_one_state_holds_for_ever() -> None:
    topology = timed()
    assert [time for time, _ in states_of(topology)] == [0.0]
    assert not topology.timeline


def test_a_set_value_holds_from_its_time_and_leaves_the_others() -> None:
    topology = timed({"at": "5 s", "set": {"between": ["a", "b"], "loss": "1 %"}})
    assert history(topology, "loss") == [(0.0, 0.0), (5.0, 0.01)]
    assert history(topology, "loss", "b", "a") == [(0.0, 0.0), (5.0, 0.01)]
    assert history(topology, "delay") == [(0.0, 0.010)]
    assert history(topology, "loss", "a", "c") == [(0.0, 0.0)]


def test_a_set_of_a_site_changes_its_access_link() -> None:
    topology = timed({"at": "1 s", "set": {"site": "b", "down": "1 Mbit"}})
    assert [(t, s.rate("a", "b")) for t, s in states_of(topology)] == [(0.0, 100e6), (1.0, 1e6)]


def test_a_ramp_is_linear_and_stays_at_its_goal() -> None:
    """A ramp goes linearly from what held to its goal and stays there."""
    topology = timed({"from": "1 s", "to": "2 s", "ramp": {"from": "a", "to": "b", "delay": "50 ms", "step": "250 ms"}})
    found = history(topology, "delay")
    assert [time for time, _ in found] == [0.0, 1.25, 1.5, 1.75, 2.0]
    assert [value for _, value in found] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert state_at(topology, 99.0).link("a", "b").delay == pytest.approx(0.05)


def test_a_rate_without_cap_ramps_from_the_line_rate() -> None:
    """A rate ramps from the line rate where the pair had no cap."""
    topology = timed({"from": "0 s", "to": "1 s", "ramp": {"between": ["a", "b"], "rate": "20 Mbit", "step": "500 ms"}})
    assert history(topology, "rate") == [(0.0, 100e6), (0.5, 60e6), (1.0, 20e6)]


def test_a_flapping_link_loses_everything_while_it_is_away() -> None:
    topology = timed({"from": "2 s", "to": "6 s", "flap": {"between": ["a", "b"], "away": "1 s", "back": "2 s"}})
    assert history(topology, "loss") == [(0.0, 0.0), (2.0, 1.0), (3.0, 0.0), (5.0, 1.0), (6.0, 0.0)]


def test_a_partition_cuts_between_groups_until_it_is_healed() -> None:
    topology = timed({"at": "1 s", "partition": {"groups": [["a"], ["b"]]}}, {"at": "4 s", "heal": "all"})
    assert history(topology, "loss") == [(0.0, 0.0), (1.0, 1.0), (4.0, 0.0)]
    assert history(topology, "loss", "a", "c") == [(0.0, 0.0)]


def test_a_trace_repeats_and_then_the_earlier_state_returns() -> None:
    """A trace plays its rates over and over and then what held before holds again."""
    topology = timed(
        {
            "from": "1 s",
            "to": "2.5 s",
            "trace": {"site": "a", "side": "up", "rates": ["5 Mbit", "2 Mbit"], "every": "0.5 s"},
        }
    )
    found = [(time, state.site("a").up) for time, state in states_of(topology)]
    assert found == [(0.0, 100e6), (1.0, 5e6), (1.5, 2e6), (2.0, 5e6), (2.5, 100e6)]


def test_cross_traffic_is_listed_stretch_by_stretch() -> None:
    topology = timed(
        {
            "from": "1 s",
            "to": "6 s",
            "traffic": {"from": "a", "to": "b", "rate": "5 Mbit", "busy": "1 s", "idle": "2 s"},
        }
    )
    assert topology.timeline.cross_traffic() == [
        CrossTraffic("a", "b", 5e6, 1.0, 2.0),
        CrossTraffic("a", "b", 5e6, 4.0, 5.0),
    ]


def test_what_happens_to_sites_is_listed_by_time() -> None:
    topology = timed(
        {"at": "9 s", "restart": {"site": "b"}},
        {"at": "5 s", "crash": {"site": "b"}},
        {"from": "1 s", "to": "7 s", "pause": {"site": "a"}},
    )
    assert topology.timeline.site_events() == [
        WorkerEvent(1.0, "a", "pause"),
        WorkerEvent(5.0, "b", "crash"),
        WorkerEvent(7.0, "a", "resume"),
        WorkerEvent(9.0, "b", "restart"),
    ]


def test_overlapping_events_fold_in_order_of_start() -> None:
    """Events that overlap are folded in the order of their beginning."""
    topology = timed(
        {"at": "3 s", "set": {"between": ["a", "b"], "delay": "70 ms"}},
        {"at": "1 s", "set": {"between": ["a", "b"], "delay": "30 ms"}},
    )
    assert history(topology, "delay") == [(0.0, 0.01), (1.0, 0.03), (3.0, 0.07)]


def test_keeping_the_first_sites_keeps_the_events_among_them() -> None:
    events = [{"at": "1 s", "set": {"between": ["a", "b"], "delay": "1 ms"}}, {"at": "2 s", "crash": {"site": "c"}}]
    kept = subset_document({**BASE, "timeline": events}, ["a", "b"])
    assert len(topology_from(kept, "here").timeline.events) == 1


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"at": "1 s", "set": {"between": ["a", "b"], "delay": None}}, "not null"),
        ({"at": "1 s", "set": {"site": "a", "up": None}}, "rates above zero"),
        ({"from": "1 s", "to": "2 s", "ramp": {"between": ["a", "b"], "delay": None}}, "rates and step above zero"),
        ({"at": "1 s", "set": {"between": ["a", "b"], "queue": "1514 B"}}, "at least two full frames"),
        ({"from": "1 s", "to": "2 s", "trace": {"site": "a", "rates": ["0 bit"], "every": "1 s"}}, "greater than 0"),
        ({"at": "1 s", "set": {"between": ["a", "x"], "delay": "1 ms"}}, "'x'"),
        ({"at": "1 s", "set": {"between": ["a", "a"], "delay": "1 ms"}}, "each site once"),
        ({"at": "1 s", "set": {"between": ["a", "b"], "up": "1 Mbit"}}, "delay"),
        ({"at": "1 s", "set": {"site": "a", "delay": "1 ms"}}, "down, up"),
        ({"at": "1 s", "set": {"site": "a", "between": ["a", "b"], "up": "1 Mbit"}}, "one of"),
        ({"at": "1 s", "ramp": {"site": "a", "up": "1 Mbit"}}, "lasts"),
        ({"from": "1 s", "to": "2 s", "crash": {"site": "a"}}, "one time"),
        ({"from": "2 s", "to": "2 s", "pause": {"site": "a"}}, "later"),
        ({"at": "1 s"}, "exactly one action"),
        ({"at": "1 s", "heal": "all"}, "partition that began before"),
        ({"at": "1 s", "restart": {"site": "a"}}, "crash of a before"),
        ({"at": "1 s", "partition": {"groups": [["a", "b"], ["b"]]}}, "each site once"),
        ({"at": "1", "crash": {"site": "a"}}, "a duration in one of"),
        ({"from": "0 s", "to": "1 h", "flap": {"between": ["a", "b"], "away": "10 ms", "back": "10 ms"}}, "changes"),
    ],
)
def test_an_event_that_does_not_apply_is_refused(event: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        timed(event)
