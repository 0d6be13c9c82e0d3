"""docs/reliability.md: prose with the measurements of a soak test in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.bench.bounds import TEARDOWN_SECONDS, bounds
from harness.bench.chaos.chaos_report import ChaosReport
from harness.bench.endurance import EnduranceRow
from harness.bench.malformed_inputs import Tried
from harness.bench.soak import MethodFaultCost, SoakResult
from harness.bench.soak_report import SoakReport
from netsim.units import show_duration, show_size
from reports.pages.chaos_section import chaos_section
from reports.pages.endurance_section import endurance_section
from reports.pages.markdown_page import MarkdownPage
from reports.style.tables import Column, text_table

TEMPLATE = Path(__file__).with_name("reliability.md")
_COST_COLUMNS = (
    Column("method", "method", numeric=False),
    Column("detection", "detection time"),
    Column("recovery", "recovery time"),
    Column("wasted", "wasted tokens"),
    Column("retransmitted", "retransmitted bytes"),
    Column("resync", "resync bytes"),
    Column("loss", "final loss"),
    Column("valid", "valid", numeric=False),
)


def reliability_page(
    report: SoakReport, chaos: ChaosReport | None = None, endurance: Sequence[EnduranceRow] = ()
) -> MarkdownPage:
    """The template with its marked places filled."""
    text = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "bounds": _bounds(),
        "chaos": chaos_section(chaos) if chaos is not None and chaos.outcomes else "",
        "endurance": endurance_section(endurance),
        "fault costs": _costs(report.costs),
        "kills": _kills(report.soak),
        "inputs": _inputs(report.inputs),
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part.strip())
    return MarkdownPage("reliability", text)


def _bounds() -> str:
    """One row per process and disturbance; the stages after the start have the same bound."""
    rows = [
        (bound.process, bound.disturbance, _seconds(start.seconds), _seconds(bound.seconds), bound.why)
        for start, bound in zip(bounds()[::3], bounds()[1::3], strict=True)
    ]
    columns = (
        Column("process", "process", numeric=False),
        Column("disturbance", "is", numeric=False),
        Column("start", "noticed, before training starts, within"),
        Column("later", "afterwards, within"),
        Column("why", "how", numeric=False),
    )
    down = ", ".join(f"{seconds:g} s on {name}" for name, seconds in TEARDOWN_SECONDS.items())
    return f"{text_table('bounds', '', '', columns, rows).markdown()}\nThe network is then taken down within {down}."


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"


def _costs(rows: Sequence[MethodFaultCost]) -> str:
    table = text_table("costs", "", "", _COST_COLUMNS, [_cost(row) for row in rows])
    return f"""
One crash with return, one straggler and one corrupt payload on four sites, the same for every method:

{table.markdown()}
Detection time: from the fault to the first worker that noticed it; recovery time: from there until all workers
trained again. A method that synchronises rarely detects a fault late, at no cost. Wasted tokens are those of discarded
steps: the steps of a lost worker since its last synchronisation, of all workers that roll back to a checkpoint, of
a worker that resyncs from another, and a step that is redone because its synchronisation failed. Times were measured
on one host, whose cores all sites share.
"""


def _cost(row: MethodFaultCost) -> tuple[str, ...]:
    lost = row.tokens_lost or 0
    return (
        row.method,
        _times(row.detection_seconds),
        _times(row.recovery_seconds),
        f"{lost} of {(row.tokens_committed or 0) + lost}",
        show_size(row.bytes_repeated or 0),
        show_size(row.bytes_caught_up or 0),
        "-" if row.final_loss is None else f"{row.final_loss:.3f}",
        "yes" if row.valid else "no",
    )


def _times(values: list[float] | None) -> str:
    return ", ".join(show_duration(value) for value in values or ()) or "-"


def _kills(soak: SoakResult) -> str:
    total = sum(soak.kills.values())
    by_target = ", ".join(f"{count} {target}" for target, count in sorted(soak.kills.items()))
    rows = (
        ("substrate", soak.substrate),
        ("kills", f"{total} ({by_target})"),
        ("starts of the suite", str(soak.starts)),
        ("completions", str(soak.completions)),
        ("completions with every loss bit-identical to the undisturbed run", str(soak.same_losses)),
        ("cells resumed from a checkpoint", str(soak.resumed)),
        ("finished records read back after a kill", str(soak.records_read)),
        ("corrupt records", str(len(soak.corrupt))),
        ("processes, containers, networks, packet-filter rules or directories left behind", str(len(soak.leaked))),
        *([] if soak.swept is None else [("left by killed runners, for the next start to remove", str(soak.swept))]),
        ("longest time until all children of a killed runner had ended", show_duration(soak.slowest_end_seconds)),
        ("duration", show_duration(soak.seconds)),
    )
    columns = (Column("what", "", numeric=False), Column("value", "", numeric=False))
    return f"## SIGKILL at random moments\n\n{text_table('kills', '', '', columns, rows).markdown()}"


def _inputs(tried: Tried) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tried.by_kind.items()))
    return f"""## Malformed input

{tried.total} documents with one to three mutations ({kinds}):
{tried.refused} refused with one message that names the field,
{tried.total - tried.refused - len(tried.wrong)} still valid, {len(tried.wrong)} handled otherwise. Then
`tests/fuzz` gives every parser bytes, documents and mutations of a committed corpus; Hypothesis goes on from those that
get furthest into our code, by the lines that they run. `make fuzz` tries more of each.
"""
