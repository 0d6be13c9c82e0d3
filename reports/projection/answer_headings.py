"""What the tables of a projection are called, and their columns, with units."""

from __future__ import annotations

TITLES = {
    "bandwidth_for_utilisation": "least access rate for a compute utilisation (Gbit/s)",
    "near_one_site": "least access rate to take hardly longer than one site (Gbit/s)",
    "period_for_utilisation": "least sync period for a compute utilisation (local steps)",
    "within_limits": "deadline and budget",
    "break_even_period": "break-even period (local steps)",
    "largest_in_time": "largest model within the deadline",
    "equal_loss": "time to data parallelism's loss",
    "answer_sensitivities": "sensitivities of answers (% of the answer per % of the input)",
    "step_parts": "a step within a site",
    "failure_costs": "what failures cost",
    "sensitivities": "sensitivities (% of total time per % of the input)",
}
COLUMNS = {
    "label": "method",
    "rate_gbit": "rate (Gbit/s)",
    "rtt_ms": "RTT (ms)",
    "sync_every": "sync every (steps)",
    "break_even_sync_every": "break-even sync every (steps)",
    "sync_every_for_90_percent": "sync every for 90 % utilisation (steps)",
    "site_memory_bytes": "memory of a site (bytes)",
    "memory_bytes": "memory needed (bytes)",
    "total_seconds": "total (s)",
    "cost_usd": "cost (US$)",
    "slower_percent": "slower (%)",
    "dearer_percent": "dearer (%)",
    "loss_percent": "loss above (%)",
    "token_factor": "tokens (times)",
    "elasticity": "elasticity (%/%)",
    "computing_seconds": "computing (s)",
    "bubble_seconds": "bubble (s)",
    "tensor_seconds": "tensor (s)",
    "stages_seconds": "stages (s)",
    "replicas_seconds": "replicas (s)",
    "mfu": "MFU",
    "days_between_failures": "days between failures",
    "checkpoint_every_minutes": "checkpoint every (min)",
    "overhead_percent": "overhead (%)",
    "compute_seconds": "compute (s)",
    "waiting_seconds": "waiting (s)",
    "communication_seconds": "exposed (s)",
    "failure_seconds": "failures (s)",
    "payload_bytes_per_worker": "payload per worker (bytes)",
    "memory_bytes_per_worker": "memory of a site in use (bytes)",
    "energy_kwh": "energy (kWh)",
}


def title_of(table: str) -> str:
    return TITLES.get(table, table.replace("_", " "))


def heading_of_table(table: str) -> str:
    """The title as a line of its own."""
    title = title_of(table)
    return title[:1].upper() + title[1:]


def heading_of(column: str) -> str:
    return COLUMNS.get(column, column.replace("_", " "))


def shown(value: object) -> str:
    """A cell for people: four digits, thousands apart, yes and no."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
