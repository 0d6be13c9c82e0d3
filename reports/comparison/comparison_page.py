"""A comparison as a folder: one offline page, its tables and its figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from reports.comparison.change_figure import change_figure
from reports.comparison.comparison_tables import (
    comparison_json,
    network_table,
    overall_table,
    settings_tables,
)
from reports.comparison.record_comparison import RecordComparison
from reports.manifest import new_report
from reports.style.drawing import inline_svg, write
from reports.style.tables import write_table
from reports.style.web_page import page_css, page_template

_PAGE = Path(__file__).with_name("comparison_page.html")


def write_comparison(comparison: RecordComparison, out: Path, failed: Sequence[str] = ()) -> Path:
    """index.html, comparison.json, tables/ and figures/ in `out`, as a report replaces a report there; the page."""
    with new_report(out) as made:
        for name in ("figures", "tables"):
            (made / name).mkdir()
        tables = [overall_table(comparison), network_table(comparison), *settings_tables(comparison)]
        for table in tables:
            write_table(table, made / "tables")
        drawing = change_figure(comparison)
        svg = write(drawing, made / "figures")
        page = page_template(_PAGE).render(
            a=comparison.names[0],
            b=comparison.names[1],
            pairs=comparison.pairs,
            same="Settings, environment and code are the same." if comparison.settings.none else "",
            failed=failed,
            only_a=comparison.only_a,
            only_b=comparison.only_b,
            figure=drawing,
            svg=Markup(inline_svg(drawing.name, svg)),
            tables=tables,
            css=page_css(),
        )
        (made / "index.html").write_text(page, encoding="utf-8")
        document = json.dumps(comparison_json(comparison, failed), indent=1)
        (made / "comparison.json").write_text(f"{document}\n", encoding="utf-8")
    return out / "index.html"
