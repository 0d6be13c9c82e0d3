"""The main job on real nodes: a suite from the command line to its records, on both substrates."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.records.run_record import Step, read_lines, read_run
from netsim.emulated.substrates.capabilities import container_engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to build network namespaces"),
    pytest.mark.timeout(300),
]
needs_docker = pytest.mark.skipif(not container_engine(), reason="no Docker engine answers")

SUITE: dict[str, Any] = {
    "name": "small",
    "model": "tiny",
    "train": {"steps": 6, "batch": 2, "warmup": 2, "evaluate_every": 3, "evaluation_sequences": 8},
    "methods": ["ddp", {"method": "diloco", "options": {"sync_every": 3}}],
    "topologies": ["lan", "transatlantic"],
}
UNCHECKED = {"gate": False}  # where the links do not matter


def longhaul(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longhaul", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False)


def run_suite(folder: Path, substrate: str, **changes: Any) -> tuple[int, list[dict[str, Any]]]:
    (folder / "small.yaml").write_text(yaml.safe_dump({**SUITE, **changes}))
    done = longhaul("run", "small.yaml", "--substrate", substrate, "--json", cwd=folder)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["runs"]


@pytest.fixture(scope="module")
def netns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("with a space in it")
    code, runs = run_suite(folder, "netns")
    assert code == 0, runs
    return folder, runs


def test_every_cell_completes_with_the_planned_bytes(netns: tuple[Path, list[dict[str, Any]]]) -> None:
    """Every cell completes with passed links and the planned bytes."""
    _, rows = netns
    assert [row["state"] for row in rows] == ["complete"] * 4
    for row in rows:
        run = read_run(Path(row["directory"]))
        result = run.result
        assert result.valid, result.why_invalid
        assert result.payload_bytes_per_worker == result.planned_payload_bytes_per_worker > 0
        assert result.wire_bytes_per_worker > result.payload_bytes_per_worker
        assert sum(result.seconds.values()) == pytest.approx(result.wall_seconds, rel=0.05)
        assert result.memory_bytes == result.predicted_memory_bytes
        assert run.links["before"].passed
        assert run.links["after"].passed
        assert len(run.links["before"].links) == 12
        assert run.environment["network"]["engine"] == result.engine
        assert len(list(run.steps(rank=3))) == 6
        ledger = (run.directory / "rank-0" / "ledger.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["payload_bytes"] for line in ledger) == [*run.steps()][-1].payload_bytes


def losses(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[float | None]]:
    return {
        (row["algorithm"], row["topology"]): [
            step.loss for step in read_lines(Path(row["directory"]) / "rank-0" / "steps.jsonl", Step)
        ]
        for row in rows
    }


def test_the_same_seed_gives_the_same_loss_on_every_network(netns: tuple[Path, list[dict[str, Any]]]) -> None:
    found = losses(netns[1])
    for method in ("ddp", "diloco"):
        assert found[method, "lan"] == found[method, "transatlantic"]


def test_a_second_call_reuses_what_is_complete(netns: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = netns
    code, again = run_suite(folder, "netns")
    assert code == 0
    assert [row["state"] for row in again] == ["reused"] * 4
    assert [row["id"] for row in again] == [row["id"] for row in rows]


def test_a_failed_cell_does_not_stop_the_rest(netns: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too little text for four shards.")
    methods = [{"method": "ddp", "data": {"source": "text", "path": "short.txt"}}, SUITE["methods"][1]]
    code, rows = run_suite(tmp_path, "netns", methods=methods, topologies=["lan"], network=UNCHECKED)
    assert code == 1
    assert [row["state"] for row in rows] == ["failed", "complete"], rows
    assert "more text, fewer sites" in rows[0]["reason"]
    assert json.loads((Path(rows[0]["directory"]) / "failure.json").read_text())["reason"] == rows[0]["reason"]
    assert not (Path(rows[0]["directory"]) / "result.json").exists()


@pytest.mark.docker
@needs_docker
def test_containers_give_the_same_losses_as_namespaces(
    netns: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    code, rows = run_suite(tmp_path, "docker", topologies=["transatlantic"], network=UNCHECKED)
    assert code == 0, rows
    expected = losses(netns[1])
    assert losses(rows) == {key: value for key, value in expected.items() if key[1] == "transatlantic"}
    for row in rows:
        assert read_run(Path(row["directory"])).result.substrate == "docker"


@pytest.mark.parametrize(
    ("substrate", "methods"),
    [
        ("netns", SUITE["methods"]),
        pytest.param("docker", SUITE["methods"][1:], marks=[pytest.mark.docker, needs_docker]),
    ],
    ids=["netns", "docker"],
)
def test_sites_of_two_workers_send_the_planned_bytes(tmp_path: Path, substrate: str, methods: list[Any]) -> None:
    """Four trainers in two nodes: the run is valid, and sends what one trainer in each would send."""
    topology = {
        "name": "pairs",
        "defaults": {"up": "50 Mbit", "down": "50 Mbit", "rtt": "20 ms"},
        "sites": {"a": {"workers": 2}, "b": {"workers": 2}},
    }
    code, rows = run_suite(tmp_path, substrate, topologies=[topology], sites=2, methods=methods)
    assert code == 0, rows
    assert len(rows) == len(methods)
    for row in rows:
        run = read_run(Path(row["directory"]))
        assert run.result.valid, run.result.why_invalid
        assert run.result.payload_bytes_per_worker == run.result.planned_payload_bytes_per_worker > 0
        assert run.result.tokens == 6 * 4 * 2 * run.spec.model.sequence
        assert (run.directory / "rank-1.1" / "summary.json").exists()


def test_nothing_of_a_finished_suite_is_left(netns: tuple[Path, list[dict[str, Any]]]) -> None:
    done = longhaul("clean", "--json", cwd=netns[0])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: small\nmodel: tiny\ntrain: {steps: 5}\nmethods: [dpp]\ntopologies: [lan]\n", "dpp"),
        ("name: small\nmodle: tiny\ntrain: {steps: 5}\nmethods: [ddp]\ntopologies: [lan]\n", "modle"),
        ("name: small\ntrain: {steps: 5\n", "line"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path, text: str, named: str) -> None:
    """Bad input is one message and exit code two and leaves nothing."""
    (tmp_path / "bad.yaml").write_text(text)
    done = longhaul("run", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.yaml" in done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_an_unreadable_record_is_refused_by_name(tmp_path: Path) -> None:
    record = tmp_path / "runs" / "suite" / "run" / "result.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"id": 5')
    done = longhaul("report", "runs", "--out", "report", cwd=tmp_path)
    assert done.returncode == 2
    assert "result.json" in done.stderr
    assert not (tmp_path / "report").exists()
