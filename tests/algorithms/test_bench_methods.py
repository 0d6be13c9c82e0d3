"""`longhaul bench methods` measures methods against AdamW and leaves the library as it was."""

from __future__ import annotations

from algorithms import lowrank
from algorithms.method import find, names
from harness.bench.method_overhead import PERIOD, measure_methods, settings_of
from tests.algorithms.training import DENSE


def test_methods_are_measured_against_adamw_with_their_svd_apart() -> None:
    basis = lowrank.basis
    measured = measure_methods(DENSE, batch=1, turns=1, only=("single", "diloco", "lordo", "fomoe"))
    rows = {row.method: row for row in measured}
    assert set(rows) == {"adamw", "diloco", "lordo"}  # fomoe needs experts
    assert rows["adamw"].overhead_percent == 0
    assert {name for name, row in rows.items() if row.svd_ms_per_round > 0} == {"lordo"}
    assert all(row.step_ms > row.update_ms > 0 for row in rows.values())
    assert (rows["lordo"].target_percent, rows["diloco"].target_percent) == (25, 10)
    assert lowrank.basis is basis


def test_every_method_is_benched() -> None:
    for name in names():
        assert find(name, settings_of(name), "bench").name == name
    assert settings_of("photon")["sync_every"] == PERIOD
