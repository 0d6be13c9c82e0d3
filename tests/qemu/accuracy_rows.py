"""Rows of the netem engine under load for docs/accuracy.md: `python -m tests.qemu.accuracy_rows --results FILE`.

Boots the guest once and measures the links of `harness.bench.link_load` there, by both engines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.bench.link_load import LOAD_SECONDS, LOADS, LoadPoint, load_topology_of, loaded_link, stored_loads
from harness.bench.rows import append_row
from netsim.emulated.load_probe import LoadFinding
from tests.qemu.guest_networks import plans_of
from tests.qemu.measuring import measure

GUEST_NAME = "guest"


def main(results: Annotated[Path, typer.Option(help="JSON lines to append the rows to.")]) -> None:
    """Measure what the results file lacks."""
    known = {row.load_point for row in stored_loads(results)}
    points = [LoadPoint(GUEST_NAME, engine, *load) for engine in ("netem", "nfqueue") for load in LOADS]
    missing = {f"{point.engine}-{index}": point for index, point in enumerate(points) if point not in known}
    if not missing:
        return
    found = measure([_network(name, point) for name, point in missing.items()])
    for name, point in missing.items():
        finding = LoadFinding.from_json(found[name]["loaded"][point.load])
        append_row(results, loaded_link(point, load_topology_of(point), finding))


def _network(name: str, point: LoadPoint) -> dict[str, Any]:
    topology = load_topology_of(point)
    return {
        "name": name,
        "plans": [plan.to_json() for plan in plans_of(topology, point.engine)],
        "rate": topology.rate("a", "b"),
        "echoes": 3,
        "interval": 0.05,
        "seconds": 0.3,
        "tcp": False,
        "loads": [point.load],
        "load_seconds": LOAD_SECONDS,
    }


if __name__ == "__main__":
    typer.run(main)
