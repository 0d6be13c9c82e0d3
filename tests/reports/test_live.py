"""A suite while it runs: what its record files say, the page on loopback, lines and event files."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.layout import RunDirectory
from harness.records.run_record import write_json
from netsim.errors import HostError, InputError
from reports.live.cell_follower import SILENCE_SECONDS
from reports.live.lines import fitted, status_table
from reports.live.log_follower import LogFollower
from reports.live.server import LiveServer, served
from reports.live.status import Point, thinned
from reports.live.suite_follower import SuiteFollower
from tests.reports.made_up import RecordedRun


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A suite of three cells: one complete, one that trains, one that waits."""
    suite = tmp_path / "runs" / "made-up"
    done = RecordedRun("ddp", "ddp", steps=40).write(suite)
    trains = RecordedRun("diloco", steps=40).write(suite)
    (trains / "result.json").unlink()
    for rank in range(4):
        path = trains / f"rank-{rank}" / "steps.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:25]) + '{"step": 26, "clo')
    events(done, [{"at": 1.0, "kind": "gate", "passed": True}, {"at": 50.0, "kind": "trained"}])
    events(trains, [{"at": 1.0, "kind": "gate", "passed": True}, {"at": 2.0, "kind": "go"}])
    cells = [
        {"id": path.name, "label": label, "topology": "wan", "seed": 1, "steps": 40}
        for path, label in ((done, "ddp"), (trains, "diloco"), (Path("photon-wan-s1-0123456789"), "photon"))
    ]
    write_json(suite / "suite.json", {"suite": "made-up", "baseline": "ddp", "cells": cells})
    return suite


def events(run: Path, lines: list[dict[str, object]]) -> None:
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_cells_are_complete_training_or_waiting(running: Path) -> None:
    status = SuiteFollower(running).read()
    assert [cell.stage for cell in status.cells] == ["complete", "training", "waiting"]
    trains = status.cells[1]
    assert (trains.step, trains.steps, trains.held_out) == (25, 40, True)
    assert trains.loss == trains.curve[-1].evaluation_loss
    assert trains.clock is not None
    assert trains.seconds_left == pytest.approx(15 * trains.clock / 25)
    assert [gate.passed for gate in trains.gates] == [True]
    assert [uplink.site for uplink in trains.uplinks] == list("abcd")
    assert status.seconds_left == pytest.approx((trains.seconds_left or 0.0) + 50.0)  # what the finished cell took


def test_bytes_of_an_uplink_are_those_that_its_site_sent(running: Path) -> None:
    trains = SuiteFollower(running).read().cells[1]
    last = json.loads((running / trains.id / "rank-2" / "steps.jsonl").read_text().splitlines()[24])
    assert last["payload_bytes"] > 0
    assert trains.uplinks[2].payload_bytes == last["payload_bytes"]
    assert trains.uplinks[2].rate == pytest.approx(8 * last["payload_bytes"] / last["clock"])


def test_a_follower_goes_on_where_the_log_goes_on(running: Path) -> None:
    follower = SuiteFollower(running)
    before = follower.read().cells[1]
    log = RunDirectory(running / before.id).worker(0).steps
    whole = log.read_text().rsplit("\n", 1)[0] + "\n"
    with log.open("a") as file:
        file.write('ck": 1}\n' + json.dumps({"step": 27, "clock": 99.0, "loss": 2.0, "payload_bytes": 7}) + "\n")
    assert follower.read().cells[1].step == 27
    assert SuiteFollower(running).read().cells[1].step == 27  # a new one reads the same
    log.write_text("".join(whole.splitlines(keepends=True)[:10]))  # resumed from a checkpoint
    assert follower.read().cells[1].step == 10


def test_a_run_whose_runner_is_gone_shows_no_sign_of_life(running: Path) -> None:
    trains = running / SuiteFollower(running).read().cells[1].id
    old = time.time() - 2 * SILENCE_SECONDS
    for path in (trains, *trains.rglob("*")):
        os.utime(path, (old, old))
    assert SuiteFollower(running).read().cells[1].stage == "no sign of life"
    write_json(trains / "failure.json", {"reason": "trainer 1 ended with 3"})
    failed = SuiteFollower(running).read().cells[1]
    assert (failed.stage, failed.reason) == ("failed", "trainer 1 ended with 3")


def test_a_damaged_spec_is_a_cell_that_is_unreadable(running: Path) -> None:
    broken = RecordedRun("photon", "photon", steps=40).write(running)
    (broken / "spec.json").write_text("{}")
    assert SuiteFollower(running).read().cells[2].stage == "unreadable"


def test_a_log_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"step": 1}\n')
    (tmp_path / "steps.jsonl").symlink_to(tmp_path / "secret")
    assert LogFollower(tmp_path / "steps.jsonl").read() == (False, [])


def test_long_curves_are_thinned_to_their_ends() -> None:
    points = tuple(Point(step, float(step), 1.0, None, 0) for step in range(5000))
    found = thinned(points)
    assert len(found) == 200
    assert (found[0], found[-1]) == (points[0], points[-1])


@pytest.fixture
def server(running: Path) -> Iterator[LiveServer]:
    follower = SuiteFollower(running.parent)
    with served(0, lambda: follower.read().json()) as found:
        yield found


def ask(server: LiveServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    address, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(address), int(port), timeout=10)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    assert answer.getheader("X-Content-Type-Options") == "nosniff" or answer.status == 501
    return answer.status, answer.read().decode()


def test_the_page_and_its_numbers_are_served_on_loopback(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, page = ask(server, "/")
    assert status == 200
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere
    status, text = ask(server, "/status.json")
    assert (status, [cell["stage"] for cell in json.loads(text)["cells"]]) == (200, ["complete", "training", "waiting"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "", "localhost:1"])
def test_another_host_name_is_refused(server: LiveServer, host: str) -> None:
    assert ask(server, "/status.json", host)[0] == 403


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/spec.json", "/status.json/", "/spec.json", "/?x"])
def test_no_other_path_is_answered(server: LiveServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_nothing_can_be_posted(server: LiveServer) -> None:
    assert ask(server, "/status.json", method="POST")[0] == 501


def test_the_page_outlives_the_records(server: LiveServer, running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.live.server.SHORTEST_SECONDS", 0.0)
    running.parent.rename(running.parent.with_name("elsewhere"))
    assert "no such directory" in json.loads(ask(server, "/status.json")[1])["error"]
    running.parent.with_name("elsewhere").rename(running.parent)
    assert "error" not in json.loads(ask(server, "/status.json")[1])


def test_a_taken_port_is_one_clear_error(server: LiveServer) -> None:
    with pytest.raises(HostError, match="choose another port"), served(server.server_address[1], dict):
        pass


def test_a_state_is_shown_whole_in_eighty_columns(running: Path) -> None:
    assert fitted("[8/30] photon on sweep-30mbit-100ms, seed 1", "step 15/40, loss 2.908, CU 100%, 4 s left", 80) == (
        "[8/30] photon on s…mbit-100ms, seed 1: step 15/40, loss 2.908, CU 100%, 4 s left"
    )
    status = SuiteFollower(running).read()
    many = replace(status, cells=tuple(replace(cell, topology="n" * 90) for cell in status.cells) * 40)
    table = status_table(many, 80, 24)
    texts = [str(text) for text in table.columns[0].cells]
    assert max(map(len, texts)) <= 80
    assert len(texts) <= 24
    assert any("step 25/40, loss" in text for text in texts)


def test_no_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        SuiteFollower(tmp_path / "runs").read()
