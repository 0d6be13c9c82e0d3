"""What `longhaul bench simulator` times does what it says."""

from __future__ import annotations

from harness.bench.simulator_speed import five_methods, flow_level, many_sites
from netsim.library import ROOT


def test_the_benchmark_projects_five_methods_over_a_full_run() -> None:
    assert five_methods(str(ROOT / "scenarios" / "fomoe-104b.yaml")) == "5 rows of 28608 steps"


def test_the_simulator_bench_covers_flows_and_bulk_rounds() -> None:
    """The benchmark simulates flow by flow and advances equal rounds in bulk."""
    assert flow_level(0.0, 200) == "1 rounds simulated, 199 advanced in bulk"


def test_ten_thousand_sites_need_no_simulation() -> None:
    assert many_sites(10_000).startswith("1000 rounds")
