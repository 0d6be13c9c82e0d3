"""The measured and predicted cost of faults: the section of docs/validation.md, and texts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from harness.costmodel.fault_validation import QUANTITIES, Compared, FaultRow, errors_of
from netsim.units import show_size
from reports.style.tables import Column, text_table

TITLES = {
    "generations": "generations",
    "tokens_lost": "wasted tokens",
    "bytes_repeated": "retransmitted bytes",
    "bytes_caught_up": "resync bytes",
    "detection": "detection time",
    "recovery": "recovery time",
    "wall": "wall time",
}
_PROSE = """## The cost of faults

Runs with declared faults, measured / predicted. Counts and bytes follow from the plan and from what the method
does about a loss ([reliability](reliability.md)). How much of an exchange had been sent when it failed depends on a
race between workers: the prediction assumes full TCP send buffers, a rule that was chosen after seeing the runs
below. A step that a joining site interrupts is also wasted for members that had begun it before the rendezvous; the
prediction does not include this. If a run has several losses, times are means. A fault is injected after the update
that follows a synchronisation and before the slot that this update shortens: a method that synchronises at every
step detects the fault earlier than predicted by that time.
"""


def fault_section(rows: Sequence[FaultRow]) -> str:
    """The section in Markdown."""
    errors = text_table(
        "errors",
        "",
        "",
        (
            Column("quantity", "", numeric=False),
            Column("runs", "runs"),
            Column("exact", "exact"),
            Column("mean", "mean absolute error", "%"),
            Column("max", "maximum absolute error", "%"),
        ),
        [
            (
                TITLES[name],
                str(one.runs),
                str(one.exact),
                *(f"{v:.1f}" if v is not None else "" for v in (one.mean, one.max)),
            )
            for name, one in errors_of(rows).items()
        ],
    )
    columns = [Column("run", "run", numeric=False), Column("faults", "faults", numeric=False)]
    columns += [Column(name, TITLES[name]) for name in QUANTITIES]
    every = text_table("faults", "", "", columns, [_cells(row) for row in rows])
    return f"{_PROSE}\n{errors.markdown()}\n{every.markdown()}"


def _cells(row: FaultRow) -> tuple[str, ...]:
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(row.faults.items())) or "none"
    return row.id, faults, *(pair(name, row.quantities[name]) for name in QUANTITIES)


def pair(name: str, one: Compared) -> str:
    """Measured / predicted, with units."""
    return f"{_shown(name, one.measured)} / {_shown(name, one.predicted)}"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith("bytes"):
        return show_size(value)
    return f"{value:.2f} s" if name in ("detection", "recovery", "wall") else f"{value:.0f}"
