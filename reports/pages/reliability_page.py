"""docs/reliability.md, from what a soak found."""

from __future__ import annotations

from pathlib import Path

from harness.bench.malformed_inputs import Tried
from harness.bench.soak import MethodFaultCost, SoakResult
from netsim.units import show_duration, show_size

TEMPLATE = Path(__file__).with_name("reliability.md")


def write_page(path: Path, soak: SoakResult, rows: list[MethodFaultCost], tried: Tried) -> None:
    """The page, whole."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, part in (("misfortune", _tolls(rows)), ("kills", _kills(soak)), ("inputs", _inputs(tried))):
        text = text.replace(f"<!-- {name} -->", part.strip())
    path.write_text(text, encoding="utf-8")


def _tolls(rows: list[MethodFaultCost]) -> str:
    lines = [
        "",
        "One crash with return, one straggler and one corrupt payload, four sites, the same for every method:",
        "",
        "| method | noticed after | went on after | tokens in vain | sent again | to catch up | final loss | valid |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lost = row.tokens_lost or 0
        loss = "-" if row.final_loss is None else f"{row.final_loss:.3f}"
        lines.append(
            f"| {row.method} | {_times(row.detection_seconds)} | {_times(row.recovery_seconds)} "
            f"| {lost} of {(row.tokens_committed or 0) + lost} | {show_size(row.bytes_repeated or 0)} "
            f"| {show_size(row.bytes_caught_up or 0)} | {loss} | {'yes' if row.valid else 'no'} |"
        )
    note = [
        "",
        "From the fault to the first worker that noticed, and from there until all went on. A method that synchronises",
        "rarely notices late, and loses nothing by it. Times are of one host, whose cores all sites share.",
    ]
    return "\n".join([*lines, *note, ""])


def _times(values: list[float] | None) -> str:
    return ", ".join(show_duration(value) for value in values or ()) or "-"


def _kills(soak: SoakResult) -> str:
    total = sum(soak.kills.values())
    by_target = ", ".join(f"{count} {target}" for target, count in sorted(soak.kills.items()))
    return "\n".join(
        [
            "",
            "## SIGKILL at random moments",
            "",
            "| | |",
            "| --- | --- |",
            f"| substrate | {soak.substrate} |",
            f"| kills | {total} ({by_target}) |",
            f"| starts of the suite | {soak.starts} |",
            f"| completions | {soak.completions} |",
            f"| of these with every loss of the undisturbed run, to the bit | {soak.same_losses} |",
            f"| cells that went on from a checkpoint | {soak.resumed} |",
            f"| finished records read back after a kill | {soak.records_read} |",
            f"| of these corrupt | {len(soak.corrupt)} |",
            f"| processes, containers, networks, packet-filter rules or directories left | {len(soak.leaked)} |",
            f"| longest until all that a killed runner started had ended | {show_duration(soak.slowest_end_seconds)} |",
            f"| took | {show_duration(soak.seconds)} |",
            "",
        ]
    )


def _inputs(tried: Tried) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tried.by_kind.items()))
    return "\n".join(
        [
            "## Spoilt input",
            "",
            f"{tried.total} documents with one to three mutations ({kinds}):",
            f"{tried.refused} refused with one message that names the field,",
            f"{tried.total - tried.refused - len(tried.wrong)} still valid, {len(tried.wrong)} answered otherwise.",
            "",
        ]
    )
