"""One row of a projection: a method with its options at a number of sites, a rate and an RTT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.spec.scenario import Scenario


@dataclass(frozen=True)
class Band:
    """Total seconds if the inputs are better and worse than stated by their uncertainty."""

    low_seconds: float
    high_seconds: float


@dataclass(frozen=True)
class ProjectedRow:
    """Field names are the keys of the JSON document; units are in the names.

    axis: what of the base it varies, `base` if nothing.  sync_every, replication, rank: options, None where the method
    has none.  step_seconds: one local step of the slowest site.  compute_seconds: of the mean site.  waiting_seconds:
    of that site for slower ones.  communication_seconds: exposed.  failure_seconds: checkpoints, lost work, restarts.
    memory: bytes by component at the site that has the largest share of its memory in use.  extrapolated: outside of
    what the calibration's runs spanned, or without a calibration.
    """

    algorithm: str
    label: str
    axis: str
    model: str
    parameters: int
    sites: int
    rate_gbit: float
    rtt_ms: float
    sync_every: int | None
    replication: int | None
    rank: int | None
    steps: int
    tokens: int
    syncs: int
    step_seconds: float
    payload_bytes_per_worker: float
    compute_seconds: float
    waiting_seconds: float
    communication_seconds: float
    failure_seconds: float
    total_seconds: float
    compute_utilisation: float
    memory_bytes_per_worker: int
    memory: dict[str, int]
    host_memory_bytes: int
    site_memory_bytes: int
    fits: bool
    error_band: Band
    extrapolated: bool
    basis: str
    evaluator: str
    device_hours: float
    energy_kwh: float | None
    cost_usd: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def base_rows(rows: Sequence[ProjectedRow], scenario: Scenario) -> list[ProjectedRow]:
    """The rows at the scenario's own rate, RTT, sites and options: one per method."""
    rate, rtt = scenario.rate, scenario.rtt
    return [
        row
        for row in rows
        if row.axis == "base" and (rate is None or (row.rate_gbit == rate / 1e9 and row.rtt_ms == 1e3 * (rtt or 0.0)))
    ]
