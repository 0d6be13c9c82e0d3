"""Scaled emulation on real nodes, from the suite to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.records.run_record import read_run
from harness.spec.resolved import ResolvedRun
from reports.build import build_report
from tests.scaled.suites import write_suite

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to build network namespaces"),
    pytest.mark.timeout(180),
]
METHODS = [{"method": "ddp", "options": {"bucket_mb": 0.5}}, {"method": "photon", "label": "photon ps"}]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("scaled")
    train = {"steps": 4, "batch": 2, "warmup": 2, "evaluate_every": 4, "evaluation_sequences": 8}
    write_suite(folder, methods=METHODS, train=train, compute={"mode": "paced", "step_seconds": 0.2})
    command = [sys.executable, "-m", "longhaul", "run", "suite.yaml", "--substrate", "netns", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return rows


def test_the_ledger_is_the_padded_plan_to_the_byte(ran: list[dict[str, Any]]) -> None:
    """The ledger is the padded plan to the byte on links that are as scaled."""
    assert len(ran) == 2
    for row in ran:
        run = read_run(Path(row["directory"]))
        assert run.result.valid, run.result.why_invalid
        plan = ResolvedRun.of(run.spec).plan
        assert run.result.payload_bytes_per_worker == plan.payload_bytes / 4
        assert plan.payload_bytes > ResolvedRun.of(run.spec).own_plan.payload_bytes
        asked = {link.rate_mbit_asked for link in run.links["before"].links}
        assert [*asked] == [pytest.approx(ResolvedRun.of(run.spec).topology.rate("a", "b") / 1e6, rel=1e-5)]
        assert run.links["before"].passed


def test_the_report_has_scaled_runs_in_target_time(ran: list[dict[str, Any]], tmp_path: Path) -> None:
    """The report has them in target time beside the projection."""
    document = build_report([Path(row["directory"]) for row in ran], tmp_path / "report")
    rows = {row["label"]: row for row in document["tables"]["scaled"]}
    assert rows.keys() == {"ddp", "photon ps"}
    for row in rows.values():
        assert row["target_seconds"] == pytest.approx(row["time_scale"] * row["seconds"])
        assert row["target_seconds"] / row["projected_seconds"] - 1 == pytest.approx(row["error"])
    assert "scaled" in document["figures"]
