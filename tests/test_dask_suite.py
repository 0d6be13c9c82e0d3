"""A suite spread over the hosts of a cluster leaves the records that it leaves at home, one run per host at a time."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster import remote_cell
from harness.cluster.dask_client import connected
from harness.cluster.dask_suite import _free, _workers, spread_suite
from harness.cluster.remote_cell import _turn, packed, unpack
from harness.records.run_record import finished_runs, read_run
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome, cells_of, run_suite
from harness.spec.suite import load_suite
from netsim.bounded_call import BoundedCaller
from netsim.errors import HostError
from tests.clusters import DaskCluster, dask_cluster

LINKS = {"up": "200 Mbit", "down": "200 Mbit", "rtt": "10 ms"}
SUITE: dict[str, Any] = {
    "name": "spread",
    "model": "tiny",
    "train": {
        "steps": 8,
        "batch": 2,
        "warmup": 2,
        "evaluate_every": 8,
        "evaluation_sequences": 4,
        "checkpoint_every": 4,
    },
    "methods": ["ddp", {"method": "diloco", "options": {"sync_every": 4}}],
    "topologies": [{"name": "pair", "defaults": LINKS, "sites": {"a": {}, "b": {}}}],
    "network": {"gate": False},
}


class Watch:
    """An observer that remembers, and may act when a cell begins."""

    def __init__(self, on_begin: Any = None) -> None:
        self.places: list[str] = []
        self.outcomes: list[CellOutcome] = []
        self._on_begin = on_begin

    def stage(self, cell: Cell, stage: str, directory: Path) -> None:
        if stage.startswith("at "):
            self.places.append(stage.removeprefix("at "))
            if self._on_begin is not None:
                self._on_begin(self.places)

    def done(self, outcome: CellOutcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path, ["127.0.0.1", "127.0.0.2"]) as made:
        yield made


def cells(folder: Path, runs: str) -> list[Cell]:
    suite = folder / "spread.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    return cells_of(load_suite(suite), folder / runs, "netns", "nfqueue")


def losses(runs: Path) -> dict[str, list[float | None]]:
    return {run.name: [step.loss for step in read_run(run).steps(1)] for run in finished_runs(runs)}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces")
def test_every_host_carries_runs_and_the_records_come_home(cluster: DaskCluster, tmp_path: Path) -> None:
    watch = Watch()
    away = list(spread_suite(cells(tmp_path, "away"), False, watch, cluster.scheduler))
    assert [outcome.state for outcome in away] == ["complete", "complete"], [outcome.reason for outcome in away]
    assert sorted(watch.places) == ["127.0.0.1", "127.0.0.2"]
    home = list(run_suite(cells(tmp_path, "home"), tmp_path / "home", False, Watch()))
    assert [outcome.state for outcome in home] == ["complete", "complete"]
    assert losses(tmp_path / "away" / "spread") == losses(tmp_path / "home" / "spread")
    assert not list((tmp_path / "away").rglob("checkpoints"))
    again = list(spread_suite(cells(tmp_path, "away"), False, watch, cluster.scheduler))
    assert [outcome.state for outcome in again] == ["reused", "reused"]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs network namespaces")
def test_a_cell_whose_host_is_lost_is_run_at_another(cluster: DaskCluster, tmp_path: Path) -> None:
    def lose(places: list[str]) -> None:
        if len(places) == 1:
            threading.Timer(3.0, cluster.kill, [int(places[0].rpartition(".")[2]) - 1]).start()

    watch = Watch(lose)
    (outcome,) = spread_suite(cells(tmp_path, "away")[:1], False, watch, cluster.scheduler)
    assert outcome.state == "complete", outcome.reason
    assert watch.places == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.slow
def test_workers_with_other_source_are_refused(cluster: DaskCluster) -> None:
    with pytest.raises(HostError, match="same source"), connected(cluster.scheduler, lambda: str(os.getpid())):
        pass


@pytest.mark.slow
def test_a_stopped_scheduler_is_given_up(cluster: DaskCluster) -> None:
    """Its connection stands, so that nothing but a bound ends the wait."""
    with connected(cluster.scheduler, lambda: "the same") as client:
        caller = BoundedCaller("the Dask scheduler", 2.0)
        assert len(_workers(client, caller)) == 2
        cluster.scheduler_process.suspend()
        try:
            began = time.monotonic()
            gone = "does not answer any more: the Dask scheduler did not answer within 2 s"
            with pytest.raises(HostError, match=gone):
                _workers(client, caller)
            assert time.monotonic() - began < 4
        finally:
            cluster.scheduler_process.resume()


def test_a_cell_that_stands_still_at_a_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cell, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(remote_cell, "STOPPED_SECONDS", 0.5)
    process = subprocess.Popen(["/bin/sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    remote_cell.wait_for_cell(process, lambda: False)
    assert process.returncode == -signal.SIGKILL
    assert 0.5 < time.monotonic() - began < 3


def test_a_host_with_several_workers_gets_one_run() -> None:
    workers = ["tcp://10.0.0.1:1", "tcp://10.0.0.1:2", "tcp://10.0.0.2:1"]
    assert _free(workers, []) == ["tcp://10.0.0.1:1", "tcp://10.0.0.2:1"]
    assert _free(workers, ["tcp://10.0.0.1:2"]) == ["tcp://10.0.0.2:1"]


def test_two_runs_at_one_host_take_turns() -> None:
    order: list[str] = []

    def second() -> None:
        with _turn(lambda: False) as mine:
            order.append(f"second {mine}")

    with _turn(lambda: False) as mine:
        order.append(f"first {mine}")
        other = threading.Thread(target=second)
        other.start()
        with _turn(lambda: True) as stopped:
            order.append(f"stopped {stopped}")
        time.sleep(0.1)
        order.append("first leaves")
    other.join(10)
    assert order == ["first True", "stopped False", "first leaves", "second True"]


def test_a_record_arrives_whole_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    """A record arrives whole and takes the place of an earlier one."""
    source, target = tmp_path / "source", tmp_path / "runs" / "target"
    (source / "rank-0" / "checkpoints" / "step-1").mkdir(parents=True)
    (source / "rank-0" / "steps.jsonl").write_text("a step")
    target.mkdir(parents=True)
    (target / "failure.json").write_text("{}")
    unpack(packed(source), target)
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    assert found == ["rank-0", "rank-0/steps.jsonl"]
    assert list(target.parent.iterdir()) == [target]


def test_a_record_that_would_leave_its_directory_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(tarfile.TarError):
        unpack(file.getvalue(), tmp_path / "runs" / "target")
    assert not list(tmp_path.rglob("outside"))
    assert not (tmp_path / "runs" / "target").exists()
