"""Rows of links under load and of networks of many sites: what they say, and how they are kept and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench.link_load import (
    LOADS,
    LoadPoint,
    ManySites,
    SitesPoint,
    load_topology_of,
    loaded_link,
    measure_loads,
    stored_loads,
    stored_sites,
)
from harness.bench.rows import append_host, append_row
from netsim.emulated.load_probe import LoadFinding
from netsim.errors import LonghaulError
from netsim.framing import goodput
from reports.pages.link_load_tables import load_sections, load_table
from tests.emulated.networks import need

POINT = LoadPoint("netns", "nfqueue", "tcp", "10 Mbit", "50 ms", "60 kB")
FINDING = LoadFinding((0.05, 0.098, 0.09), goodput(10e6, 1500), 0, 0)
SITES = ManySites(SitesPoint("netns", "nfqueue", 64, "10 Mbit", "50 ms"), 9.0, 60.0, 96, True, 0.6, -0.01, 900.0, 80.0)


def test_a_row_under_load_knows_what_a_full_queue_would_be() -> None:
    row = loaded_link(POINT, load_topology_of(POINT), FINDING)
    assert (row.rtt_ms, row.rtt_ms_worst, row.rtt_ms_asked) == pytest.approx((90, 98, 50))
    assert row.rtt_ms_most == pytest.approx(50 + 48)
    assert row.goodput_share == pytest.approx(1.0)


def test_only_small_packets_are_counted_as_lost() -> None:
    small = LoadPoint("guest", "netem", "small", "10 Mbit", "300 ms", "600 kB")
    row = loaded_link(small, load_topology_of(small), LoadFinding((0.3,), 1e6, 500, 498))
    assert (row.sent, row.lost, row.goodput_share) == (500, 2, None)
    assert load_table([row]).rows[0]["lost"].text == "2 of 500"
    assert not row.carried


def test_the_page_says_how_many_packets_a_second_are_carried() -> None:
    rows = []
    for rate, sent, lost, took in (("20 Mbit", 100_000, 0, 0.0505), ("80 Mbit", 320_000, 9, 0.06)):
        point = LoadPoint("netns", "nfqueue", "small", rate, "50 ms", "400 kB")
        rows.append(loaded_link(point, load_topology_of(point), LoadFinding((took,), 1e6, sent, sent - lost)))
    text = "\n".join(load_sections(rows, []))
    assert "netns, nfqueue: 25000 were carried without loss and within" in text
    assert "tolerance of the RTT, 80000 were not." in text
    assert "25000 were carried without loss and within the short check's tolerance of the RTT; no more" in "".join(
        load_sections(rows[:1], [])
    )


def test_no_echo_at_all_is_an_error() -> None:
    with pytest.raises(LonghaulError, match="no echo came back over LoadPoint"):
        loaded_link(POINT, load_topology_of(POINT), LoadFinding(()))


def test_rows_of_every_kind_are_kept_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = loaded_link(POINT, load_topology_of(POINT), FINDING)
    append_host(file, {"cpu": "one"})
    append_row(file, row)
    append_row(file, SITES)
    assert stored_loads(file) == [row]
    assert stored_sites(file) == [SITES]
    assert LoadFinding.from_json(FINDING.to_json()) == FINDING


def test_the_page_shows_both_tables_or_what_there_is() -> None:
    row = loaded_link(POINT, load_topology_of(POINT), FINDING)
    text = "\n".join(load_sections([row], [SITES]))
    assert (
        "| netns, nfqueue | one TCP connection | 10 Mbit | 50 ms | 60 kB | 90.0 | 98.0 | 98.0 | 100.0 | - | - |" in text
    )
    assert "| netns, nfqueue | 64 | 9.0 | 60.0 | 96 | passed | +0.60 | -1.00 | 900 | 80 |" in text
    assert load_sections([], []) == []


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timing
def test_links_under_load_are_measured(tmp_path: Path) -> None:
    """Each kind of load at one rate; `longhaul bench wan` measures more rates, and what the engine carries at most."""
    need("netns")
    loads = [LOADS[1], LOADS[2], LOADS[4]]
    rows = measure_loads(["netns"], "nfqueue", tmp_path / "rows.jsonl", lambda line: None, loads)
    assert [row.load_point.load for row in rows] == ["flood", "tcp", "small"]
    for row in rows:
        assert row.rtt_ms_asked <= row.rtt_ms_worst <= row.rtt_ms_most + 10
    assert rows == stored_loads(tmp_path / "rows.jsonl")
