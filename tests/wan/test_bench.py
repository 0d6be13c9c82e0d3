"""The collectives bench: its page, and one small network measured for real."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.bench.all_reduce import AllReduceTimes, hosts_of_rows, opened_windows, star, stored_all_reduces
from harness.bench.rows import append_host, append_row, hosts_of
from harness.bench.torch_backends import BackendPoint, BackendTimes, cases_of, stored_backends
from longhaul.commands.benches.bench_network import bench_collectives
from netsim.traffic import Transfer
from reports.pages.all_reduce_page import collectives_page, collectives_table, draw_efficiency
from reports.pages.markdown_page import hosts_line
from reports.style.drawing import write_images

ROW = AllReduceTimes(
    substrate="docker",
    loaded=False,
    sites=4,
    rate_mbit=100.0,
    rtt_ms=50.0,
    payload_bytes=25_000_000,
    algorithm="direct",
    streams=1,
    bound_ms=3187.0,
    floor_ms=3162.0,
    cold_ms=3391.0,
    warm_ms=3200.0,
    worst_ms=3300.0,
    best_ms=3187.0,
    gloo_cold_ms=3555.0,
    gloo_ms=3247.0,
    rounds=1,
    repeats=2,
    cpu_seconds=0.45,
    gloo_cpu_seconds=0.21,
    links_passed=True,
    host_busy_percent=3.0,
)
HOST = {"cpu": "a processor", "cores": 2, "kernel": "6.1", "python": "3.11", "versions": {"torch": "2"}}


def test_the_page_names_what_misses_the_target() -> None:
    slow = replace(ROW, rate_mbit=1000.0, warm_ms=6000.0)
    text = collectives_page([ROW, slow], 90.0, HOST).text
    assert "Below the target: 4 x 1000 Mbit/s x 50 ms, docker, no added load (53 %)." in text
    assert "Every network reaches the target of 90 %." in collectives_page([ROW], 90.0, HOST).text


def test_every_host_of_rows_is_named(tmp_path: Path) -> None:
    """Also where two hosts have as many rows."""
    results = tmp_path / "rows.jsonl"
    for cpu, row in (("one", ROW), ("another", replace(ROW, rtt_ms=10.0))):
        append_host(results, HOST | {"cpu": cpu})
        append_row(results, row)
    names = {name: host["cpu"] for name, host in hosts_of_rows(results).items()}
    assert names == {"other rows": "one", "4 x 100 Mbit/s x 10 ms, docker, no added load": "another"}
    hosts = hosts_of(results, lambda line: True)
    rest = "2 cores, Linux 6.1, Python 3.11, torch 2"
    assert hosts_line(hosts) == f"Hosts, of a part of the rows each: one, {rest}; another, {rest}."
    assert hosts_line(hosts[:1]) == f"Host: one, {rest}."


def test_backends_move_the_payload_that_their_row_names() -> None:
    transfer = Transfer("bench", 25_000_000 // 4, (0, 1))
    assert [4 * case.elements for case in cases_of([transfer], [0.364])] == [25_000_000, 25_000_000]


def test_the_page_shows_what_scripts_get_where_it_was_measured() -> None:
    row = BackendTimes(BackendPoint("netns", 4, "1 Gbit", "50 ms", 1000), 50.1, 57.2, 400.0, 308.4, 500.0, True, 4.0)
    text = collectives_page([ROW], 90.0, HOST, backends=[row]).text
    assert "| netns | 4 | 1 Gbit | 50 ms | 1 kB | 50 | 57 | 308 | 400 | 500 | 4 | passed |" in text
    assert "torch.distributed" not in collectives_page([ROW], 90.0, HOST).text


def test_rows_of_both_kinds_are_kept_in_one_file(tmp_path: Path) -> None:
    point, file = BackendPoint("netns", 4, "1 Gbit", "50 ms", 1000), tmp_path / "rows.jsonl"
    row = BackendTimes(point, 50.1, 57.2, 400.0, 308.4, 500.0, True, 4.0)
    append_row(file, ROW)
    append_row(file, row)
    assert stored_all_reduces(file) == [ROW]
    assert stored_backends(file) == [row]


def test_a_row_has_a_cell_for_every_heading() -> None:
    (row,) = collectives_table([ROW], 90.0).rows
    assert row["efficiency"].text == "100"


def test_windows_are_opened_to_what_a_path_holds() -> None:
    """1 Gbit/s x 50 ms hold 6.25 MB, which three connections of a site share."""
    segments = opened_windows(star(4, "1 Gbit", "50 ms")).transport.initial_window
    assert 3 * segments * 1448 == pytest.approx(6.25e6, rel=0.001)
    assert opened_windows(star(4, "10 Mbit", "1 ms")).transport.initial_window == 10
    (row,) = collectives_table([replace(ROW, cold_open_ms=2 * ROW.bound_ms, open_segments=segments)], 90.0).rows
    assert row["cold_ratio"].text == "2.00"


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(draw_efficiency([ROW, replace(ROW, rtt_ms=10.0)], 90.0), tmp_path / name)
    assert (tmp_path / "a" / "collectives.svg").read_bytes() == (tmp_path / "b" / "collectives.svg").read_bytes()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces")
def test_a_small_network_is_measured_and_written_down(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench_collectives)
    arguments = ["--sites", "2", "--rate", "200 Mbit", "--rtt", "10 ms", "--size", "1 MB", "--substrate", "netns"]
    arguments += ["--only", "idle", "--results", str(tmp_path / "rows.jsonl")]
    done = CliRunner().invoke(app, [*arguments, "--json", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code in (0, 1)  # whether the target is reached is the bench's to say, not a test's
    document = json.loads(done.stdout)
    (row,) = document["rows"]
    assert row["sites"] == 2
    assert row["payload_bytes"] == 1_000_000
    assert row["bound_ms"] == pytest.approx(10 + 1e3 * 8e6 / (200e6 * 1448 / 1514), rel=1e-3)
    assert 0.5 * row["floor_ms"] < row["best_ms"] <= row["warm_ms"] <= row["worst_ms"]
    assert row["rounds"] == 3
    assert (tmp_path / "collectives.md").read_text().startswith("# WAN collectives")
    assert (tmp_path / "figures" / "collectives.svg").is_file()
    large, small = document["backends"]
    assert [one["backend_point"]["payload_bytes"] for one in (large, small)] == [1_000_000, 1000]
    assert all(min(one["ours_ms"], one["gloo_ms"]) > 0.5 * one["bound_ms"] for one in (large, small))
    assert "## Through torch.distributed" in (tmp_path / "collectives.md").read_text()
    again = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["rows"] == [row]  # not measured anew
    assert json.loads(again.stdout)["backends"] == [large, small]
