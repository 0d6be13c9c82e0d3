"""Long and wide runs in docs/reliability.md: what processes hold early and late, and how large records get."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.endurance import ALLOWED, RUN_BYTES, SITE_BYTES, STEP_BYTES, EnduranceRow
from netsim.units import show_duration, show_size
from reports.style.tables import Column, text_table

_COLUMNS = (
    Column("case", "case", numeric=False),
    Column("substrate", "substrate", numeric=False),
    Column("process", "process", numeric=False),
    Column("early memory", "resident memory, second quarter"),
    Column("late memory", "last quarter"),
    Column("early descriptors", "open descriptors, second quarter"),
    Column("late descriptors", "last quarter"),
    Column("flat", "flat", numeric=False),
)


def endurance_section(rows: Sequence[EnduranceRow]) -> str:
    """Markdown; nothing if nothing has been measured."""
    if not rows:
        return ""
    table = [
        (
            row.name,
            row.substrate,
            held.process,
            show_size(held.early_bytes),
            show_size(held.late_bytes),
            f"{held.early_descriptors:g}",
            f"{held.late_descriptors:g}",
            "yes" if held.flat else "no",
        )
        for row in rows
        for held in row.held
    ]
    records = "\n".join(
        f"- {row.name}, {row.substrate}: {row.complete} of {row.cells} completed in {show_duration(row.seconds)}; "
        f"{show_size(row.record_bytes)} of records, {show_size(row.record_bytes_per_worker_step)} per step and worker; "
        f"{'within' if row.bounded else 'ABOVE'} the bound of {show_size(row.record_bound)}"
        for row in rows
    )
    return f"""## Long and wide runs

Of each kind of process the largest, median over a quarter of the time that was trained; flat: at most {ALLOWED:g} times
as much in the last quarter, or 8 MB more, and two descriptors (`longhaul bench endurance --write-docs`):

{text_table("endurance", "", "", _COLUMNS, table).markdown()}
{records}

Records grow by a line per step and worker, and a line per transfer in its ledger; checkpoints, of which two are kept,
do not. The bound: {show_size(RUN_BYTES)} per run, {show_size(SITE_BYTES)} per site of a run, {STEP_BYTES} B per step
of a site.
"""
