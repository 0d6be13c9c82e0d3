"""A projection on disk: all rows as CSV and JSON, the answers as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.costmodel.planning.answer_tables import Answers
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.spec.scenario import Scenario
from reports.projection.answer_headings import heading_of, heading_of_table, shown
from reports.style.frame_csv import frame_csv
from reports.style.tables import Column, Table, text_table

Entry = dict[str, Any]  # a line of a table, by column
BASE_COLUMNS = (
    "label", "parameters", "payload_bytes_per_worker", "syncs", "compute_seconds", "waiting_seconds",
    "communication_seconds", "failure_seconds", "total_seconds",
    "compute_utilisation", "memory_bytes_per_worker", "fits", "energy_kwh", "cost_usd",
)  # fmt: skip


def write_tables(
    scenario: Scenario, rows: Sequence[ProjectedRow], found: Answers, document: dict[str, Any], folder: Path
) -> list[Path]:
    """`<scenario>.json` (the document), `.csv` (rows) and `.md` (base rows and answers) in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{scenario.name}.{kind}" for kind in ("json", "csv", "md")]
    paths[0].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(frame_csv(pd.json_normalize([row.to_json() for row in rows], sep=".")), encoding="utf-8")
    parts = [f"# {scenario.name}", "", scenario.description.strip(), "", scenario.source.strip(), ""]
    base = [{name: getattr(row, name) for name in BASE_COLUMNS} for row in base_rows(rows, scenario)]
    parts += ["## Base configuration", "", entries_table("base", "", base).markdown()]
    for name, entries in found.to_json().items():
        if entries:
            table = entries_table(name, "", [flattened(entry) for entry in entries])
            parts += [f"## {heading_of_table(name)}", "", table.markdown()]
    paths[2].write_text("\n".join(parts) + "\n", encoding="utf-8")
    return paths


def flattened(entry: Entry) -> Entry:
    """With the entries of inner mappings as columns of their own."""
    found: Entry = {}
    for name, value in entry.items():
        found.update({f"{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value})
    return found


def entries_table(name: str, title: str, entries: Sequence[Entry]) -> Table:
    """A table of entries with equal keys; units are in the keys."""
    keys = list(entries[0]) if entries else []
    numeric = {key: all(isinstance(entry.get(key), int | float | None) for entry in entries) for key in keys}
    columns = [Column(key, heading_of(key), numeric=numeric[key]) for key in keys]
    return text_table(name, title, "", columns, [[shown(entry.get(key)) for key in keys] for entry in entries])
