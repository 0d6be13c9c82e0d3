"""Rows of the netem engine under load for docs/accuracy.md: `python -m tests.qemu.accuracy_rows --results FILE`.

Boots the guest once and measures the links of `harness.bench.link_load` there, by both engines.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.bench.link_load import LOAD_SECONDS, LOADS, LoadPoint, load_topology_of, loaded_link, stored_loads
from harness.bench.rows import append_row
from netsim.emulated.compile import compile_topology, node_names
from netsim.emulated.load_probe import LoadFinding
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.library import ROOT
from tests.qemu.lab import GUEST, HERE, lab

GUEST_NAME = "guest"


def main(results: Annotated[Path, typer.Option(help="JSON lines to append the rows to.")]) -> None:
    """Measure what the results file lacks."""
    known = {row.load_point for row in stored_loads(results)}
    points = [LoadPoint(GUEST_NAME, engine, *load) for engine in ("netem", "nfqueue") for load in LOADS]
    missing = {f"{point.engine}-{index}": point for index, point in enumerate(points) if point not in known}
    if not missing:
        return
    found = _measured(missing)
    for name, point in missing.items():
        finding = LoadFinding.from_json(found[name]["loaded"][point.load])
        append_row(results, loaded_link(point, load_topology_of(point), finding))


def _measured(points: dict[str, LoadPoint]) -> dict[str, Any]:
    cases = []
    for name, point in points.items():
        topology = load_topology_of(point)
        addresses = {node: NetnsNodes().address(index) for index, node in enumerate(node_names(topology))}
        plans = compile_topology(topology, addresses, point.engine, 1)
        common = {"name": name, "plans": [plan.to_json() for plan in plans], "rate": topology.rate("a", "b")}
        streams = {"echoes": 3, "interval": 0.05, "seconds": 0.3, "tcp": False}
        cases.append({**common, **streams, "loads": [point.load], "load_seconds": LOAD_SECONDS})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "networks.json").write_text(json.dumps(cases))
        subprocess.run([HERE / "run.sh", lab(), ROOT, folder, "sh", "-c", GUEST], check=True, timeout=1200)
        measured: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return measured


if __name__ == "__main__":
    typer.run(main)
