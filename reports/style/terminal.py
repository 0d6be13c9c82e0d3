"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table as RichTable
from rich.text import Text

from reports.style.tables import Table, Value


def printable(text: str) -> str:
    """`text` on one line and without control characters: a label must not move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def terminal_table(
    table: Table,
    columns: Sequence[str] = (),
    highlight: Callable[[dict[str, Value]], str] = lambda _: "",
) -> RichTable:
    """`table` for a console; `columns`: the keys to show, all if empty; `highlight`: a rich style for a row, or ''."""
    shown = [column for column in table.columns if not columns or column.key in columns]
    title = printable(table.title)
    found = RichTable(title=Text(title) if title else None, title_justify="left")
    for column in shown:
        found.add_column(Text(printable(column.title)), justify="right" if column.numeric else "left")
    for row in table.rows:
        cells = [Text(printable(f"{row[column.key].text} {row[column.key].spread}".strip())) for column in shown]
        found.add_row(*cells, style=highlight(row))
    return found
