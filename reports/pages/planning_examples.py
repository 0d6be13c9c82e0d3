"""docs/projection.md: prose, with examples that `longhaul project` has answered, and published tables beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.costmodel.planning.answer_tables import Answers
from harness.costmodel.projected_row import ProjectedRow
from harness.costmodel.published import PublishedCell
from harness.spec.scenario import Scenario
from netsim.units import show_duration, show_size
from reports.pages.markdown_page import MarkdownPage
from reports.pages.published_tables import published_table
from reports.projection.answer_headings import heading_of_table
from reports.projection.projection_tables import entries_table, flattened

TEMPLATE = Path(__file__).with_name("projection.md")
FOLDER = "planning"  # of scenarios/
# Of each example the answers that it is about, and whether its rows' memory is shown by component.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "unlike-sites": ("failure_costs", "near_one_site", "cheapest"),
    "within-a-site": ("step_parts", "bandwidth_for_utilisation"),
    "small-memory": ("memory", "largest_model"),
    "thirty-days": ("largest_in_time", "within_limits", "cheapest", "equal_loss", "answer_sensitivities"),
}


@dataclass(frozen=True)
class Example:
    """A projected scenario of scenarios/planning; rows: one per method."""

    scenario: Scenario
    rows: Sequence[ProjectedRow]
    answers: Answers


def projection_page(
    examples: Sequence[Example], published: Sequence[tuple[Scenario, Sequence[PublishedCell]]]
) -> MarkdownPage:
    """The template with each example, and the table of published numbers, in its marked place."""
    text = TEMPLATE.read_text(encoding="utf-8").replace("<!-- published -->", published_table(published))
    for example in examples:
        text = text.replace(f"<!-- example: {example.scenario.name} -->", _section(example).rstrip())
    return MarkdownPage("projection", text)


def _section(example: Example) -> str:
    scenario, found = example.scenario, example.answers.to_json()
    parts = [f"    longhaul project {FOLDER}/{scenario.name}", "", scenario.description.strip(), ""]
    parts += [f"Source: {scenario.source.strip()}", "", entries_table("base", "", _base(example.rows)).markdown()]
    for name in EXAMPLES[scenario.name]:
        entries = _memory(example.rows) if name == "memory" else [flattened(entry) for entry in found.get(name, [])]
        title = "Memory of the fullest site, by component" if name == "memory" else heading_of_table(name)
        parts += [f"*{title}*", "", entries_table(name, "", entries).markdown()]
    return "\n".join(parts)


def _base(rows: Sequence[ProjectedRow]) -> list[dict[str, Any]]:
    """Columns that are nothing for all methods are left out."""
    found = [
        {
            "method": row.label,
            "parameters": f"{row.parameters / 1e9:.4g}e9",
            "sent per worker": show_size(row.payload_bytes_per_worker),
            "compute": show_duration(row.compute_seconds),
            "waiting": show_duration(row.waiting_seconds) if row.waiting_seconds else "",
            "exposed": show_duration(row.communication_seconds),
            "failures": show_duration(row.failure_seconds) if row.failure_seconds else "",
            "total": show_duration(row.total_seconds),
            "CU": f"{row.compute_utilisation:.1%}",
            "memory of a site": show_size(row.memory_bytes_per_worker),
            "at the host": show_size(row.host_memory_bytes) if row.host_memory_bytes else "",
            "fits": row.fits,
        }
        for row in rows
    ]
    empty = {key for key in found[0] if all(entry[key] == "" for entry in found)}
    return [{key: value for key, value in entry.items() if key not in empty} for entry in found]


def _memory(rows: Sequence[ProjectedRow]) -> list[dict[str, Any]]:
    components = list(dict.fromkeys(name for row in rows for name in row.memory))
    return [
        {"method": row.label, **{name.replace("_", " "): show_size(row.memory.get(name, 0)) for name in components}}
        for row in rows
    ]
