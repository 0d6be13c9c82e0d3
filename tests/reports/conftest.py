"""One report of a whole made-up suite, built once for every test that looks at it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reports.build import build_report
from tests.reports.made_up import Network, RecordedRun, write_grid

NASTY = 'a<script>alert("1")</script> & $x_1$ {{7*7}} | \\end{table} %'


@dataclass(frozen=True)
class Built:
    runs: Path
    out: Path
    document: dict[str, Any]

    @property
    def page(self) -> str:
        return (self.out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two methods on four networks with three seeds; one label that is markup; one run invalid, one unfinished."""
    base = tmp_path_factory.mktemp("a suite & its report")
    runs, out = base / "runs", base / "report"
    networks = [Network(f"r{rate}-d{delay}", rate * 1e6, delay / 1e3) for rate in (20, 500) for delay in (10, 100)]
    write_grid(runs, ("ddp", "diloco"), networks, (1, 2, 3), steps=40, target=3.2, metrics={"subspace_overlap": 0.5})
    RecordedRun(NASTY, "lordo", networks[0], steps=40, target=3.2, speed=0.3).write(runs)
    RecordedRun("diloco", "diloco", networks[0], seed=4, steps=40, valid=False, why_invalid=("<b>a</b> link",)).write(
        runs
    )
    unfinished = RecordedRun("ddp", "ddp", networks[0], seed=5, steps=40).write(runs)
    (unfinished / "result.json").unlink()
    document = build_report([runs], out)
    assert json.loads((out / "report.json").read_text()) == document
    return Built(runs, out, document)
