"""Tables: a raw value and a shown text for every cell, written as CSV, Markdown and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reports.style.quantities import NARROW

Raw = float | int | str | bool | None


@dataclass(frozen=True)
class Column:
    """`unit` stands in the heading; `numeric` columns align right and sort as numbers."""

    key: str
    heading: str
    unit: str = ""
    numeric: bool = True

    @property
    def title(self) -> str:
        return f"{self.heading} ({self.unit})" if self.unit else self.heading


@dataclass(frozen=True)
class Value:
    """`raw`: base units, for programs; `text`: the column's unit, for people; `runs`: indices of those behind it."""

    raw: Raw
    text: str
    spread: str = ""
    runs: tuple[int, ...] = ()


EMPTY = Value(None, "–")


@dataclass(frozen=True)
class Table:
    """`rows` hold one Value for each column's key. `extra`: raw columns for the CSV alone (quartiles, counts)."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Value], ...]
    extra: tuple[dict[str, Raw], ...] = field(default=())

    def csv(self) -> str:
        """Raw values in base units, one line for each row; what is missing is empty."""
        keys = [column.key for column in self.columns]
        extra = self.extra or tuple({} for _ in self.rows)
        names = [*keys, *dict.fromkeys(name for row in extra for name in row)]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        for row, more in zip(self.rows, extra, strict=True):
            writer.writerow(
                {key: spreadsheet_safe(raw) for key, raw in ({key: row[key].raw for key in keys} | more).items()}
            )
        return buffer.getvalue()

    def markdown(self) -> str:
        """The caption, where there is one, and the table."""
        lines = [headed(self.title, self.caption), ""] if self.title else []
        lines.append("| " + " | ".join(as_markdown(column.title) for column in self.columns) + " |")
        lines.append("| " + " | ".join("---:" if column.numeric else "---" for column in self.columns) + " |")
        for row in self.rows:
            lines.append("| " + " | ".join(as_markdown(_shown(row[column.key])) for column in self.columns) + " |")
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A `table*` for a document that uses booktabs."""
        layout = "".join("r" if column.numeric else "l" for column in self.columns)
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{as_latex(self.title + '. ' + self.caption)}}}"]
        lines += [rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}", r"\toprule"]
        lines += [" & ".join(as_latex(column.title) for column in self.columns) + r" \\", r"\midrule"]
        lines += [
            " & ".join(as_latex(_shown(row[column.key])) for column in self.columns) + r" \\" for row in self.rows
        ]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
        return "\n".join(lines) + "\n"


def text_table(name: str, title: str, caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts that have no other raw value; each row in the order of `columns`."""
    keys = [column.key for column in columns]
    cells = [{key: Value(text, text) for key, text in zip(keys, row, strict=True)} for row in rows]
    return Table(name, title, caption, tuple(columns), tuple(cells))


def spreadsheet_safe(raw: Raw) -> Raw:
    """`raw`, or behind an apostrophe if a spreadsheet would take the text for a formula (CWE-1236)."""
    return f"'{raw}" if isinstance(raw, str) and raw.startswith(("=", "+", "-", "@", "\t", "\r")) else raw


def write_table(table: Table, folder: Path) -> None:
    for ending, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
        (folder / f"{table.name}.{ending}").write_text(text, encoding="utf-8")


def _shown(value: Value) -> str:
    return f"{value.text} {value.spread}".strip()


def headed(title: str, caption: str) -> str:
    """A caption in Markdown, after its title."""
    return f"**{as_markdown(title)}.** {as_markdown(caption)}"


def as_markdown(text: str) -> str:
    text = " ".join(text.replace(NARROW, " ").split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "µ": r"\textmu{}",
    NARROW: r"\,",
}


def as_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split(" ")))


def column_texts(table: Table, key: str) -> Sequence[str]:
    """What a column shows, row by row."""
    return [row[key].text for row in table.rows]
