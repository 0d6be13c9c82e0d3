"""Delay daemons that do not keep up: what they count, what is said of it, and a link that small packets overload."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.logs import Events
from harness.run.link_gate import checked_links
from netsim.emulated.network import open_network
from netsim.emulated.node.punctuality import LATE, Backlog, Punctuality, read_overruns
from netsim.emulated.overload import crowding, overloads
from netsim.emulated.owner import Owner
from netsim.emulated.traffic_counts import DaemonCounts, LinkCounts, TrafficCounts, handled
from tests.emulated.networks import command_of, need, pair, processes_of

IDLE = TrafficCounts(1.0, (LinkCounts("a", "b", 0, 0, 0, 0, 0, 0),), (), (DaemonCounts("b", 0, 0, 0, 0.0, 0.0),))


def after(packets: int, slots: int, late: int, overrun: int = 0) -> TrafficCounts:
    link = replace(IDLE.links[0], packets=packets, overrun=overrun)
    return replace(IDLE, at=9.0, links=(link,), daemons=(DaemonCounts("b", packets, slots, late, 0.2, 0.5),))


def test_a_daemon_in_time_and_a_moment_of_stall_are_no_overload() -> None:
    assert overloads(IDLE, after(9000, 30, 0)) == []
    assert overloads(IDLE, after(9000, 30, 4)) == []
    assert overloads(IDLE, after(900_000, 3000, 40)) == []


def test_a_daemon_that_is_late_is_named_with_its_packets() -> None:
    (said,) = overloads(IDLE, after(90_000, 30, 12))
    assert said == (
        "b: its delay daemon did not keep up with 30000 packets a second: more than 20 ms late in 12 of 30 tenths of a "
        "second with traffic"
    )
    assert overloads(after(90_000, 30, 12), after(99_000, 60, 12)) == []  # what was before is not counted again


def test_a_packet_dropped_ahead_of_the_daemon_is_named() -> None:
    (said,) = overloads(IDLE, after(9000, 30, 0, overrun=1))
    assert said == "a -> b: the delay daemon of b did not keep up: 1 packets were dropped ahead of it"


def test_what_the_links_could_carry_is_held_against_the_cores() -> None:
    work = handled(IDLE, after(50_000, 30, 0))  # 10 us a packet
    assert work == [DaemonCounts("b", 50_000, 30, 0, 0.2, 0.5)]
    assert handled(after(50_000, 30, 2), after(60_000, 35, 2)) == [DaemonCounts("b", 10_000, 5, 0, 0.2, 0.0)]
    assert crowding(work, {"b": 80_000}, 1) == []
    assert "250000 packets a second" in crowding(work, {"b": 250_000}, 2)[0]
    assert "2.5 of this host's 2 cores" in crowding(work, {"b": 250_000}, 2)[0]
    assert crowding(work, {"c": 250_000}, 2) == []  # nothing is known of its daemon


def test_a_slot_is_late_once_however_often_it_was_late() -> None:
    punctuality = Punctuality()
    for now, behind in ((1.01, 0.0), (1.02, 2 * LATE), (1.03, 3 * LATE), (1.11, LATE), (1.21, 2 * LATE)):
        punctuality.count(10, behind, now)
    counted = punctuality.to_json()
    assert (counted["packets"], counted["slots"], counted["late_slots"]) == (50, 3, 2)
    assert counted["most_behind"] == 3 * LATE


def test_packets_wait_since_there_were_none() -> None:
    backlog = Backlog()
    backlog.waited(1.0, 5.0, waiting=True)  # nothing until 5.0
    assert backlog.read(5.003, all_of_them=False) == pytest.approx(0.003)
    backlog.waited(5.004, 5.004, waiting=True)
    assert backlog.read(5.05, all_of_them=True) == pytest.approx(0.05)
    backlog.waited(5.08, 5.08, waiting=True)  # they came while the daemon was not looking
    assert backlog.read(5.081, all_of_them=True) == pytest.approx(0.031)
    backlog.waited(5.09, 5.09, waiting=False)
    backlog.waited(5.1, 5.1, waiting=True)
    assert backlog.read(5.101, all_of_them=True) == pytest.approx(0.011)


def test_what_the_kernel_dropped_is_read_by_queue() -> None:
    lines = ["   16  31337     0 1     0     3     4    45129  1", "   17  31337  1024 1     0     0     0     2048  1"]
    assert read_overruns(lines) == {16: 7, 17: 0}


@pytest.mark.root
@pytest.mark.slow
def test_small_packets_that_overload_a_link_are_reported(tmp_path: Path) -> None:
    """20,000 packets of 100 bytes a second, and a daemon of b that has a quarter of a core, as on a slower host."""
    need("netns")
    two = pair(defaults={"up": "16 Mbit", "down": "16 Mbit", "delay": "15 ms", "queue": "400 kB"})
    with (
        closing(Events(tmp_path / "events.jsonl")) as events,
        open_network(two, run_id="test", directory=tmp_path, substrate="netns", engine="nfqueue") as network,
        checked_links(network, False, events) as checked,
    ):
        daemons = [one for one in processes_of(str(Owner.this())) if command_of(one) == "delay daemon"]
        assert len(daemons) == 2
        ended = threading.Event()
        slowing = threading.Thread(target=slow_down, args=(daemons, ended))
        slowing.start()
        try:
            network.under_load("a", "b", "small", 2.0)
        finally:
            ended.set()
            slowing.join()
    assert any(said.startswith("b: its delay daemon did not keep up with") for said in checked.overloads)
    assert checked.to_json()["overloads"] == checked.overloads
    assert list(checked.marks()) == checked.overloads
    assert checked.problems() == ()
    assert list(replace(checked, wanted=True).problems()) == checked.overloads


def slow_down(processes: list[int], ended: threading.Event) -> None:
    """Lets each process run for 20 of 80 ms."""
    while not ended.is_set():
        for sent, seconds in ((signal.SIGSTOP, 0.06), (signal.SIGCONT, 0.02)):
            for process in processes:
                os.kill(process, sent)
            time.sleep(seconds)
